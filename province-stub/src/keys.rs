//! The node's secrets: made once, and read at each start, in files that nobody else may read.
//!
//! Upholds I3 (the statement key makes a statement home's) and I1 (the consent key makes a consent home's). Nothing here
//! is shown by Debug or an error; what was read from a file is wiped as soon as it is a key.

use std::{
    env, fmt, fs, io,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use peer::{
    config::{parse_hex, to_hex},
    files,
};
use proto::{
    hint::NodeSecret,
    random::{self, SystemRandom},
    suite::{SigningKey, Suite},
};
use serde::Serialize;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// No key file is near as long.
const MAX_FILE_BYTES: u64 = 4096;
/// What the group and everybody else may do with a key file: nothing.
const OTHERS: u32 = 0o077;

/// Where the secrets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// Signs consent tokens: PKCS#8 DER, Ed25519.
    pub consent: PathBuf,
    /// Signs statements: PKCS#8 DER, Ed25519. Another key than the one for consents.
    pub statement: PathBuf,
    /// The node secret, 32 bytes: every token's `k` comes from it.
    pub secret: PathBuf,
    /// The X25519 key that assisted lookups are sealed to, 32 bytes.
    pub sealing: PathBuf,
    /// The keys of the [`Vault`](crate::vault::Vault), 32 bytes each, the current one first.
    pub at_rest: Vec<KeySource>,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file, mode 0600: 32 bytes, or a text.
    File(PathBuf),
    /// An environment variable: 64 hexadecimal digits, or a text.
    Variable(String),
}

/// The node's secrets.
#[derive(Debug)]
pub struct Keys {
    /// Signs consent tokens.
    pub consent: SigningKey,
    /// Signs statements.
    pub statement: SigningKey,
    /// Where `k` comes from.
    pub secret: NodeSecret,
    /// Opens assisted lookups.
    pub sealing: SealingKey,
}

/// What the trust list says of a node's keys, hexadecimal, under the names that its source has for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicKeys {
    /// What consent tokens are signed with, Ed25519.
    pub consent_keys: [String; 1],
    /// What statements are signed with, Ed25519.
    pub statement_keys: [String; 1],
    /// The X25519 key assisted lookups are sealed to.
    pub sealing_key: String,
}

/// An X25519 private key (RFC 7748).
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SealingKey([u8; 32]);

/// A secret that could not be loaded.
#[derive(Debug, Error)]
#[error("{}: {what}", path.display())]
pub struct KeyError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and the mend.
    pub what: KeyFault,
}

/// What is wrong with a key file.
#[derive(Debug, Error)]
pub enum KeyFault {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Group or others may read it.
    #[error("mode {0:04o} lets others at a secret; run chmod 600 on it")]
    Exposed(u32),
    /// Not a private key of the documented form.
    #[error("not an Ed25519 private key in PKCS#8 DER")]
    NotEd25519,
    /// Not as long as documented.
    #[error("a secret of exactly 32 bytes is expected")]
    NotASecret,
    /// The consent key again.
    #[error("the consent key and the statement key are the same; one key has one use")]
    SharedKey,
    /// 32 bytes that X25519 has no public key for.
    #[error("not a private key of X25519")]
    NotX25519,
    /// No such variable, or not a key in it.
    #[error("64 hexadecimal digits are expected in this environment variable")]
    NotInEnvironment,
    /// Nothing that can be read, where a text is expected.
    #[error("a line of text is expected")]
    NotText,
    /// A key of the same ring again.
    #[error("the same key again; each is listed once")]
    Repeated,
}

impl KeyFiles {
    /// Under the names that [`Keys::make`] gives them in a directory of their own.
    pub fn under(dir: &Path) -> Self {
        Self {
            consent: dir.join("consent.key"),
            statement: dir.join("statement.key"),
            secret: dir.join("secret.key"),
            sealing: dir.join("sealing.key"),
            at_rest: vec![KeySource::File(dir.join("at-rest.key"))],
        }
    }
}

impl KeySource {
    /// Loads it.
    pub(crate) fn load(&self) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        match self {
            Self::File(path) => secret(path),
            Self::Variable(name) => {
                let digits = env::var(name).map(Zeroizing::new).unwrap_or_default();
                let bytes = Zeroizing::new(parse_hex(digits.trim()).unwrap_or_default());
                let secret = <[u8; 32]>::try_from(bytes.as_slice());
                secret.map(Zeroizing::new).map_err(|_| self.error(KeyFault::NotInEnvironment))
            }
        }
    }

    /// Loads a text instead of 32 bytes.
    pub fn text(&self) -> Result<Zeroizing<String>, KeyError> {
        let text = match self {
            Self::File(path) => {
                let bytes = read_private(path).map_err(|what| at(path, what))?;
                Zeroizing::new(str::from_utf8(&bytes).map_err(|_| self.error(KeyFault::NotText))?.trim().to_owned())
            }
            Self::Variable(name) => Zeroizing::new(env::var(name).unwrap_or_default().trim().to_owned()),
        };
        if text.is_empty() { Err(self.error(KeyFault::NotText)) } else { Ok(text) }
    }

    /// What is wrong with it, under its name.
    pub(crate) fn error(&self, what: KeyFault) -> KeyError {
        at(Path::new(&self.to_string()), what)
    }
}

impl fmt::Display for KeySource {
    /// Its name: what is there is shown by nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => write!(f, "env:{name}"),
        }
    }
}

impl Keys {
    /// Makes those that are missing, mode 0600, and loads all of them. What is there already stays: consents that were
    /// issued live by it.
    pub fn make(files: &KeyFiles) -> Result<Self, KeyError> {
        let signing = || SigningKey::generate(Suite::Ed25519).to_pkcs8();
        let secret = || Zeroizing::new(random::bytes::<32>(&SystemRandom).to_vec());
        make(&files.consent, signing)?;
        make(&files.statement, signing)?;
        make(&files.secret, secret)?;
        make(&files.sealing, secret)?;
        // An older key that is missing is lost: no other can stand in for it.
        if let Some(KeySource::File(current)) = files.at_rest.first() {
            make(current, secret)?;
        }
        Self::load(files)
    }

    /// Loads all of them; each must be there.
    pub fn load(files: &KeyFiles) -> Result<Self, KeyError> {
        let consent = signing_key(&files.consent)?;
        let statement = signing_key(&files.statement)?;
        if consent.verifying_key() == statement.verifying_key() {
            return Err(KeyError { path: files.statement.clone(), what: KeyFault::SharedKey });
        }
        Ok(Self {
            consent,
            statement,
            secret: NodeSecret(*secret(&files.secret)?),
            sealing: SealingKey(*secret(&files.sealing)?),
        })
    }
}

impl PublicKeys {
    /// Of these keys, which were loaded from these files.
    pub fn of(keys: &Keys, files: &KeyFiles) -> Result<Self, KeyError> {
        let signing = |key: &SigningKey| [to_hex(key.verifying_key().encoded())];
        let sealing = keys.sealing.public_key().ok_or_else(|| at(&files.sealing, KeyFault::NotX25519))?;
        Ok(Self {
            consent_keys: signing(&keys.consent),
            statement_keys: signing(&keys.statement),
            sealing_key: to_hex(&sealing),
        })
    }
}

impl SealingKey {
    /// From its 32 bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public half, as the trust list carries it; `None` if these bytes are no key.
    pub fn public_key(&self) -> Option<[u8; 32]> {
        let key = PrivateKey::from_private_key(&X25519, &self.0).ok()?;
        key.compute_public_key().ok()?.as_ref().try_into().ok()
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

fn make(path: &Path, content: impl Fn() -> Zeroizing<Vec<u8>>) -> Result<(), KeyError> {
    if path.exists() {
        return Ok(());
    }
    files::write_private(path, &content()).map_err(|error| at(path, error.into()))
}

fn signing_key(path: &Path) -> Result<SigningKey, KeyError> {
    let der = read_private(path).map_err(|what| at(path, what))?;
    SigningKey::from_pkcs8(Suite::Ed25519, &der).map_err(|_| at(path, KeyFault::NotEd25519))
}

fn secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let bytes = read_private(path).map_err(|what| at(path, what))?;
    let secret = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| at(path, KeyFault::NotASecret))?;
    Ok(Zeroizing::new(secret))
}

/// Reads a file that only its owner may read. The mode is that of the opened file, so that no other can be slipped in.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    let file = fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(KeyFault::Exposed(mode));
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn at(path: &Path, what: KeyFault) -> KeyError {
    KeyError { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::OpenOptionsExt as _, sync::Arc};

    use super::*;
    use crate::vault::Vault;

    fn write(path: &Path, mode: u32, bytes: &[u8]) {
        use io::Write as _;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).unwrap();
        file.write_all(bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A directory with all four files, after `change` had its way with their paths, modes and contents.
    fn load(change: impl Fn(&mut [(PathBuf, u32, Vec<u8>); 4])) -> Result<Keys, KeyError> {
        let dir = tempfile::tempdir().unwrap();
        let pkcs8 = || SigningKey::generate(Suite::Ed25519).to_pkcs8().to_vec();
        let path = |name: &str| dir.path().join(name);
        let mut files = [
            (path("consent"), 0o600, pkcs8()),
            (path("statement"), 0o400, pkcs8()),
            (path("secret"), 0o600, vec![7; 32]),
            (path("sealing"), 0o600, vec![9; 32]),
        ];
        change(&mut files);
        files.iter().for_each(|(path, mode, bytes)| write(path, *mode, bytes));
        let [consent, statement, secret, sealing] = ["consent", "statement", "secret", "sealing"].map(path);
        Keys::load(&KeyFiles { consent, statement, secret, sealing, at_rest: vec![] })
    }

    #[test]
    fn loads_and_shows_nothing() {
        let keys = load(|_| {}).unwrap();
        let shown = format!("{keys:?}");
        assert!(shown.contains("SealingKey(…)") && shown.contains("NodeSecret(…)"), "{shown}");
        assert!(keys.sealing.public_key().is_some());
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyFiles::under(&dir.path().join("44"));
        let first = PublicKeys::of(&Keys::make(&files).unwrap(), &files).unwrap();
        let secret = fs::read(&files.secret).unwrap();
        assert_eq!(fs::metadata(&files.secret).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&files.statement).unwrap();
        let second = PublicKeys::of(&Keys::make(&files).unwrap(), &files).unwrap();
        assert_eq!((&first.consent_keys, &first.sealing_key), (&second.consent_keys, &second.sealing_key));
        assert_ne!(first.statement_keys, second.statement_keys);
        assert_eq!(fs::read(&files.secret).unwrap(), secret);
        let [at_rest @ KeySource::File(path)] = &files.at_rest[..] else { panic!("{files:?}") };
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let first = at_rest.load().unwrap();
        Keys::make(&files).unwrap();
        assert_eq!(at_rest.load().unwrap(), first);
        fs::set_permissions(&files.secret, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keys::make(&files).unwrap_err().what, KeyFault::Exposed(0o644)));
        let nowhere = Keys::make(&KeyFiles::under(Path::new("/dev/null"))).unwrap_err();
        assert!(matches!(nowhere.what, KeyFault::Io(_)) && nowhere.path.ends_with("consent.key"));
    }

    #[test]
    fn every_way_to_be_wrong_is_named() {
        let exposed = load(|files| files[2].1 = 0o640).unwrap_err();
        assert!(exposed.to_string().contains("secret: mode 0640"), "{exposed}");
        assert!(matches!(load(|files| files[0].1 = 0o604).unwrap_err().what, KeyFault::Exposed(0o604)));
        assert!(matches!(load(|files| files[0].2 = vec![1; 48]).unwrap_err().what, KeyFault::NotEd25519));
        assert!(matches!(load(|files| files[2].2 = vec![1; 31]).unwrap_err().what, KeyFault::NotASecret));
        assert!(matches!(load(|files| files[3].2 = vec![1; 33]).unwrap_err().what, KeyFault::NotASecret));
        assert!(matches!(load(|files| files[1].2 = files[0].2.clone()).unwrap_err().what, KeyFault::SharedKey));
        let absent = load(|files| files[3].0.set_file_name("elsewhere")).unwrap_err();
        assert!(matches!(absent.what, KeyFault::Io(_)) && absent.path.ends_with("sealing"));
    }

    #[test]
    fn a_ring_is_of_files_and_variables_each_a_key_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("at-rest.key");
        write(&path, 0o600, &[7; 32]);
        let load = |sources: &[KeySource]| Vault::load(sources, Arc::new(SystemRandom));
        let file = KeySource::File(path);
        // Cargo says where a package is: no key, and always there.
        let [absent, wrong] = ["TONGXING_NO_SUCH_KEY", "CARGO_MANIFEST_DIR"].map(|n| KeySource::Variable(n.into()));
        assert_eq!(load(std::slice::from_ref(&file)).unwrap().keys().len(), 1);
        for source in [absent, wrong] {
            let error = load(&[file.clone(), source]).unwrap_err();
            assert!(matches!(error.what, KeyFault::NotInEnvironment), "{error}");
            assert!(error.to_string().starts_with("env:"), "{error}");
        }
        assert!(matches!(load(&[file.clone(), file]).unwrap_err().what, KeyFault::Repeated));
    }

    #[test]
    fn a_text_is_its_owners_alone_too() {
        let dir = tempfile::tempdir().unwrap();
        let [url, exposed, empty] = ["url", "exposed", "empty"].map(|name| dir.path().join(name));
        write(&url, 0o600, b"postgres://home\n");
        write(&exposed, 0o640, b"postgres://home\n");
        write(&empty, 0o600, b"\n");
        assert_eq!(KeySource::File(url).text().unwrap().as_str(), "postgres://home");
        assert!(matches!(KeySource::File(exposed).text().unwrap_err().what, KeyFault::Exposed(_)));
        assert!(matches!(KeySource::File(empty).text().unwrap_err().what, KeyFault::NotText));
        assert!(KeySource::Variable("CARGO_MANIFEST_DIR".into()).text().unwrap().contains('/'));
        assert!(matches!(KeySource::Variable("TONGXING_NO_SUCH".into()).text().unwrap_err().what, KeyFault::NotText));
    }
}
