-- What it takes to forget a traveler in one call.

-- Whose an answered request was: the answer, and the digest of what was asked, are about them. Those from before this
-- column do not say; they are forgotten in a day.
ALTER TABLE request ADD COLUMN person INTEGER REFERENCES person (id);

CREATE INDEX request_of_person ON request (person) WHERE person IS NOT NULL;

-- Before a device goes, whatever names it is looked for.
CREATE INDEX consent_of_device ON consent (device) WHERE device IS NOT NULL;
