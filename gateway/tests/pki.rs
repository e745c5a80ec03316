//! `gateway pki` as those use it who keep a CA: what it does, what it says, and its exit status.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::PathBuf, process::Command};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType};
use tempfile::TempDir;

const NODE: &str = "spiffe://44.example.cn/node/1";
const VENUE: &str = "spiffe://44.example.cn/venue/station/guangzhou-south";

/// A directory in which commands run.
struct Place(TempDir);

impl Place {
    /// With a CA of 44 for example.cn in `ca`.
    fn with_ca() -> Self {
        let place = Self::empty();
        place.does(&["init", "--dir", "ca", "--domain", "example.cn", "--realms", "44", "--roots", "0"]);
        place
    }

    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exit status and what was printed, on either stream.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        let output = command.current_dir(self.0.path()).arg("pki").args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap(), said)
    }

    /// What a command says that has to succeed.
    fn does(&self, arguments: &[&str]) -> String {
        let (status, said) = self.run(arguments);
        assert_eq!(status, 0, "{arguments:?}: {said}");
        said
    }

    /// A command that has to fail, for this reason.
    fn fails(&self, arguments: &[&str], why: &str) {
        let (status, said) = self.run(arguments);
        assert_eq!(status, 1, "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: no {why:?} in {said}");
    }

    /// A line of what a certificate says.
    fn said(&self, certificate: &str, what: &str) -> String {
        let shown = self.does(&["show", certificate]);
        shown.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default().trim().to_owned()
    }

    /// Writes a request that `key` signs, for these names.
    fn request(&self, name: &str, key: &KeyPair, names: &[SanType]) -> String {
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = names.to_vec();
        let pem = params.serialize_request(key).unwrap().pem().unwrap();
        fs::write(self.path(name), &pem).unwrap();
        pem
    }

    /// How the register says that a certificate stands.
    fn stands(&self, serial: &str) -> String {
        let shown = self.does(&["show", "--dir", "ca"]);
        let line = shown.lines().find(|line| line.starts_with(serial)).unwrap_or_else(|| panic!("{serial}: {shown}"));
        line[serial.len()..].trim().to_owned()
    }
}

#[test]
fn a_directory_knows_the_federation_that_its_cas_are_of() {
    let place = Place::with_ca();
    place.does(&["issue", "--dir", "ca", "--id", NODE, "--dialled-by", "localhost", "--out", "node"]);
    let serial = place.said("node/cert.pem", "serial");
    assert!(place.stands(&serial).ends_with(NODE), "{}", place.stands(&serial));
    place.does(&["renew", "--dir", "ca", "--cert", "node/cert.pem", "--out", "next"]);
    place.does(&["revoke", "--dir", "ca", "--id", NODE, "--serial", &serial, "--reason", "superseded"]);
    assert!(place.stands(&serial).starts_with("taken"), "{}", place.stands(&serial));
    let lists = place.does(&["crl", "--dir", "ca"]);
    assert!(lists.contains("44.example.cn") && lists.contains("1 revoked"), "{lists}");
    place.does(&["show", "--dir", "ca", "--domain", "example.cn"]);
    // More CAs of the same federation, without a word.
    assert!(place.does(&["init", "--dir", "ca", "--realms", "51", "--roots", "0"]).contains("example.cn"));
    assert!(place.path("ca/ca/51.example.cn.pem").exists());
}

#[test]
fn another_federation_than_the_directorys_is_refused() {
    let place = Place::with_ca();
    let why = "the CAs there are of example.cn and not of tongxing.test";
    let said = ["--dir", "ca", "--domain", "tongxing.test"];
    let with = |before: &[&'static str], after: &[&'static str]| [before, &said, after].concat();
    place.fails(&with(&["init"], &["--realms", "44", "--roots", "0"]), why);
    place.fails(&with(&["show"], &[]), why);
    place.fails(&with(&["crl"], &[]), why);
    place.fails(&with(&["issue"], &["--id", NODE, "--out", "node"]), why);
    assert!(!place.path("ca/ca/44.tongxing.test.pem").exists(), "it was made all the same");
    place.fails(
        &["issue", "--dir", "ca", "--id", "spiffe://44.tongxing.test/node/1", "--out", "node"],
        "the trust domain is not one of this federation",
    );
}

#[test]
fn a_directory_of_several_federations_asks_which() {
    let place = Place::with_ca();
    for kind in ["pem", "key"] {
        let file = |domain| match kind {
            "pem" => place.path(&format!("ca/ca/44.{domain}.pem")),
            _ => place.path(&format!("ca/ca/private/44.{domain}.key")),
        };
        fs::copy(file("example.cn"), file("other.cn")).unwrap();
    }
    place.fails(&["show", "--dir", "ca"], "example.cn, other.cn: --domain says which is meant");
    place.does(&["show", "--dir", "ca", "--domain", "other.cn"]);
}

#[test]
fn a_directory_without_a_ca_is_said_and_one_begins_with_the_test_domain() {
    let place = Place::empty();
    for command in [&["show"][..], &["crl"], &["issue", "--id", NODE, "--out", "node"]] {
        for domain in [&[][..], &["--domain", "example.cn"]] {
            place.fails(&[command, &["--dir", "nowhere"], domain].concat(), "nowhere: there is no CA");
        }
    }
    let said = place.does(&["init", "--dir", "ca", "--realms", "44", "--roots", "0"]);
    assert!(said.contains("CAs of tongxing.test under ca/ca: 1"), "{said}");
}

/// The public key of a PEM certificate, as it stands in it.
fn has_key(certificate: &str, key: &KeyPair) -> bool {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    pem.parse_x509().unwrap().public_key().raw == key.subject_public_key_info()
}

#[test]
fn a_request_is_renewed_by_its_own_key_and_under_the_old_names() {
    let place = Place::with_ca();
    let dialled = ["--dialled-by", "node-1.44.example.cn", "--dialled-by", "10.0.0.7"];
    place.does(&[&["issue", "--dir", "ca", "--id", NODE, "--out", "node"][..], &dialled].concat());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let other = SanType::DnsName("elsewhere.cn".try_into().unwrap());
    let pem = place.request("next.csr", &key, &[other]);
    let renew = ["renew", "--dir", "ca", "--cert", "node/cert.pem", "--csr"];
    place.does(&[&renew[..], &["next.csr", "--out", "next.pem"]].concat());
    assert!(has_key(&fs::read_to_string(place.path("next.pem")).unwrap(), &key), "it is for another key");
    for what in ["id", "dialled by", "issuer"] {
        assert_eq!(place.said("next.pem", what), place.said("node/cert.pem", what), "{what}");
    }
    assert_eq!(place.said("next.pem", "dialled by"), "node-1.44.example.cn 10.0.0.7");
    let (old, new) = (place.said("node/cert.pem", "serial"), place.said("next.pem", "serial"));
    assert_ne!(old, new);
    assert!(place.stands(&new).ends_with(NODE) && place.stands(&old).ends_with(NODE), "both are in the register");

    // Who does not have the key, and who asks to be another.
    let mut bent = pem.into_bytes();
    let in_signature = bent.windows(8).position(|bytes| bytes == b"-----END").unwrap() - 20;
    bent[in_signature] = if bent[in_signature] == b'A' { b'B' } else { b'A' };
    fs::write(place.path("bent.csr"), bent).unwrap();
    place.fails(&[&renew[..], &["bent.csr", "--out", "bent.pem"]].concat(), "its own key did not sign it");
    place.request("venue.csr", &key, &[SanType::URI(VENUE.try_into().unwrap())]);
    place.fails(&[&renew[..], &["venue.csr", "--out", "bent.pem"]].concat(), "and not spiffe://44.example.cn/node/1");
    assert!(!place.path("bent.pem").exists());
    place.does(&["revoke", "--dir", "ca", "--id", NODE, "--cert", "node/cert.pem", "--reason", "superseded"]);
    place.fails(&[&renew[..], &["next.csr", "--out", "bent.pem"]].concat(), "it was revoked");
}

#[test]
fn a_certificate_that_only_names_the_ca_is_not_followed_up() {
    let place = Place::with_ca();
    place.does(&["issue", "--dir", "ca", "--id", VENUE, "--out", "venue"]);
    // Whoever holds a certificate can say of another one that the same CA issued it, and sign it by a key of their own.
    let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let ca = fs::read_to_string(place.path("ca/ca/44.example.cn.pem")).unwrap();
    let forged = {
        let issuer = rcgen::Issuer::from_ca_cert_pem(&ca, &own).unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(NODE.try_into().unwrap())];
        params.signed_by(&own, &issuer).unwrap().pem()
    };
    fs::write(place.path("forged.pem"), forged).unwrap();
    assert_eq!(place.said("forged.pem", "issuer"), place.said("venue/cert.pem", "issuer"));
    place.request("next.csr", &own, &[]);
    let forged = ["renew", "--dir", "ca", "--cert", "forged.pem", "--csr", "next.csr", "--out", "next.pem"];
    place.fails(&forged, "another CA issued it");
}

#[test]
fn what_is_anothers_is_not_taken_back() {
    let place = Place::with_ca();
    place.does(&["issue", "--dir", "ca", "--id", NODE, "--out", "node"]);
    place.does(&["issue", "--dir", "ca", "--id", VENUE, "--out", "venue"]);
    let serial = place.said("venue/cert.pem", "serial");
    let revoke = ["revoke", "--dir", "ca", "--id", NODE, "--reason", "key-compromise"];
    let why = format!("{serial} is of {VENUE} and not of {NODE}");
    place.fails(&[&revoke[..], &["--cert", "venue/cert.pem"]].concat(), &why);
    place.fails(&[&revoke[..], &["--serial", &serial.to_uppercase()]].concat(), &why);
    place.fails(&[&revoke[..], &["--serial", "ff"]].concat(), "no certificate with the serial number ff");
    assert!(!place.stands(&serial).starts_with("taken"), "{}", place.stands(&serial));
    place.does(&[&revoke[..], &["--cert", "node/cert.pem"]].concat());
    assert!(place.stands(&place.said("node/cert.pem", "serial")).starts_with("taken"));
    place.fails(&revoke, &format!("no certificate of {NODE} lives"));
}
