//! `province-stub keys`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use peer::files;
use province_stub::keys::{KeyFiles, Keys, PublicKeys};

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
}

impl KeysCommand {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Init { dir, json } => print!("{}", init(&dir, json)?),
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
}
