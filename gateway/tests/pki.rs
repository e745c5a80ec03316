//! `gateway pki` as those use it who keep a CA: what it does, what it says, and its exit status.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

const NODE: &str = "spiffe://44.example.cn/node/1";

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

    /// The serial number of a certificate.
    fn serial(&self, certificate: &Path) -> String {
        let shown = self.does(&["show", certificate.to_str().unwrap()]);
        shown.lines().find_map(|line| line.strip_prefix("serial")).unwrap().trim().to_owned()
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
    let serial = place.serial(&place.path("node/cert.pem"));
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
        std::fs::copy(file("example.cn"), file("other.cn")).unwrap();
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
