//! Bad requests at one station of the shared federation: each is sent, and after each something good.

use proto::{
    contract::recognition::RecognizeRequest, presentation::Presentation, terms::Purpose, token::Consent, venue::VenueId,
};
use tongxing::checkpoint::Checkpoint;

use super::{forge::Forger, member, shared, still_serves, venue, want::Want};

/// One bad request at a station.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) request: RecognizeRequest,
    pub(crate) want: Want,
}

/// Where they are sent.
pub(crate) fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

/// Asks each and after each something good.
pub(crate) async fn run(cases: Vec<Case>) {
    let sandbox = shared();
    let checkpoint = sandbox.at(&station());
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    still_serves(&checkpoint, &good, "nothing").await;
    for Case { name, request, want } in cases {
        want.check(name, checkpoint.send(request).await);
        still_serves(&checkpoint, &good, name).await;
    }
}

/// The request for a presentation at the station.
pub(crate) fn request(presentation: &Presentation, purpose: Purpose) -> RecognizeRequest {
    Checkpoint::request(&station(), presentation, purpose)
}

/// A token as it is, with no proof: what is wrong with it comes before the proof is looked at.
pub(crate) fn token(name: &'static str, token: Vec<u8>, want: Want) -> Case {
    let request = RecognizeRequest {
        token,
        venue: station().to_string(),
        purpose: Purpose::Entry.number().into(),
        ..RecognizeRequest::default()
    };
    Case { name, request, want }
}

/// A good token with this proof, made for it.
pub(crate) fn proof(
    name: &'static str,
    home: &Forger,
    want: Want,
    make: impl FnOnce(&[u8], &Consent) -> Vec<u8>,
) -> Case {
    let consent = home.consent();
    let token = home.sign(&consent);
    let proof = make(&token, &consent);
    let request = RecognizeRequest {
        proof,
        token,
        venue: station().to_string(),
        purpose: Purpose::Entry.number().into(),
        ..RecognizeRequest::default()
    };
    Case { name, request, want }
}

/// A consent that home's own key signed, with a good proof.
pub(crate) fn consent(name: &'static str, home: &Forger, consent: &Consent, want: Want) -> Case {
    Case { name, request: request(&home.present(consent, Some(&station())), Purpose::Entry), want }
}
