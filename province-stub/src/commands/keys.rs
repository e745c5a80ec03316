//! `province-stub keys`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use peer::{config::to_hex, files};
use proto::random::{self, SystemRandom};
use province_stub::{
    config::Config,
    keys::{KeyFiles, KeySource, Keys, PublicKeys},
    vault::MAX_KEYS,
};
use zeroize::Zeroizing;

/// The node's own keys.
#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a node's keys in a directory and print the public ones, as the trust list's source has them; what is there
    /// already stays. The private ones never leave the directory.
    Init {
        /// The directory: consent.key, statement.key, secret.key, sealing.key and at-rest.key, mode 0600.
        #[arg(long)]
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make another key for what is at rest, and say how it takes the place of the current one while the node serves.
    /// Nothing is changed but for the new file.
    Rotate {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

impl KeysCommand {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Init { dir, json } => print!("{}", init(&dir, json)?),
            Self::Rotate { config } => print!("{}", rotate(&Config::read(&config)?)?),
        }
        Ok(())
    }
}

fn init(dir: &Path, json: bool) -> Result<String> {
    files::create_private_dir(dir).with_context(|| dir.display().to_string())?;
    let files = KeyFiles::under(dir);
    let public = PublicKeys::of(&Keys::make(&files)?, &files)?;
    Ok(if json { serde_json::to_string(&public)? + "\n" } else { toml::to_string(&public)? })
}

/// Makes a key in a file beside the current one, or beside the data if that is in no file.
fn rotate(config: &Config) -> Result<String> {
    let older = &config.keys.at_rest;
    if older.len() >= MAX_KEYS {
        bail!(
            "keys.at_rest has {MAX_KEYS} keys already: first remove those that the node's log says are not needed any more"
        );
    }
    let beside = older.iter().find_map(|source| match source {
        KeySource::File(path) => path.parent(),
        KeySource::Variable(_) => None,
    });
    let name = format!("at-rest-{}.key", to_hex(&random::bytes::<4>(&SystemRandom)));
    let path = beside.unwrap_or(&config.data_dir).join(name);
    let key = Zeroizing::new(random::bytes::<32>(&SystemRandom));
    files::write_private(&path, &*key).with_context(|| path.display().to_string())?;
    let list = |keys: &[&KeySource]| {
        let quoted: Vec<_> = keys.iter().map(|key| format!("{:?}", key.to_string())).collect();
        format!("   at_rest = [{}]\n", quoted.join(", "))
    };
    let new = KeySource::File(path);
    let (older, new): (Vec<_>, _) = (older.iter().collect(), &new);
    Ok([
        "Made. Back it up. Then, in [keys] of the node's configuration:\n".to_owned(),
        "1. If several nodes share the store, have all of them know it, and start each anew:\n".to_owned(),
        list(&[&older[..], &[new]].concat()),
        "2. Make it the current one, and start each anew. What the older ones sealed is sealed anew within the hour:\n"
            .to_owned(),
        list(&[&[new], &older[..]].concat()),
        "3. When the log has said that an older key may leave, and a day has passed:\n".to_owned(),
        list(&[new]),
    ]
    .concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_public_keys_in_either_form_and_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        let text = init(dir.path(), false).unwrap();
        let by_toml: toml::Table = text.parse().unwrap();
        let json = init(dir.path(), true).unwrap();
        let by_json: toml::Table = serde_json::from_str(&json).unwrap();
        assert_eq!(by_toml, by_json);
        assert_eq!(by_toml.keys().collect::<Vec<_>>(), ["consent_keys", "sealing_key", "statement_keys"]);
        let key = by_toml["statement_keys"][0].as_str().unwrap();
        assert!(key.len() == 64 && text.contains(key), "{text}");
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let error = init(Path::new("/dev/null/44"), false).unwrap_err();
        assert!(format!("{error:#}").contains("/dev/null/44"), "{error:#}");
    }

    /// A configuration that names these keys, and nothing else that is there.
    fn config(dir: &Path, keys: &[&str]) -> Config {
        let root = to_hex(proto::suite::SigningKey::generate(proto::suite::Suite::Ed25519).verifying_key().encoded());
        let text = format!(
            "member = \"44\"\nname = \"1\"\ndomain = \"tongxing.test\"\nlisten = \"127.0.0.1:7500\"\n\
             private_listen = \"127.0.0.1:7901\"\ndata_dir = \"data\"\n\
             [identity]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
             [trust]\nlist = \"t\"\npolicy = \"p\"\nroots = [\"{root}\"]\nthreshold = 1\n\
             [keys]\nconsent = \"c\"\nstatement = \"s\"\nsecret = \"k\"\nsealing = \"x\"\nat_rest = {keys:?}\n"
        );
        let path = dir.join("node.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).unwrap()
    }

    #[test]
    fn a_new_key_is_made_beside_the_current_one_and_its_way_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = rotate(&config(dir.path(), &["env:OLD", "keys/at-rest.key"])).unwrap();
        let [new] = &std::fs::read_dir(dir.path().join("keys")).unwrap().collect::<Vec<_>>()[..] else { panic!() };
        let new = new.as_ref().unwrap().path();
        assert_eq!(std::fs::read(&new).unwrap().len(), 32);
        let (new, old) = (new.display(), dir.path().join("keys/at-rest.key"));
        let old = old.display();
        for list in [
            format!("[\"env:OLD\", \"{old}\", \"{new}\"]"),
            format!("[\"{new}\", \"env:OLD\", \"{old}\"]"),
            format!("[\"{new}\"]"),
        ] {
            let table: toml::Table = format!("at_rest = {list}").parse().unwrap();
            assert!(told.contains(&format!("at_rest = {list}\n")) && table["at_rest"].is_array(), "{told}");
        }
        let full = rotate(&config(dir.path(), &["a", "b", "c", "d", "e", "f", "g", "h"])).unwrap_err();
        assert!(full.to_string().contains("8 keys already"), "{full}");
    }
}
