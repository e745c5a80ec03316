//! A PostgreSQL server of the tests' own: in a temporary directory, on a Unix socket that nobody else finds, and gone when
//! the last test that uses it is, or the tests' process in whatever way.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

/// Where the programs are, if not where Debian has them nor on the PATH.
const BIN: &str = "TONGXING_POSTGRES_BIN";
/// With `required` a machine without a server fails the tests that need one, with `skip` none is started.
const WANTED: &str = "TONGXING_POSTGRES";
/// The server's account, when the tests are root's: it serves nobody as root.
const ACCOUNT: &str = "postgres";

/// Does what it is told, a line each, and cleans up when nobody tells it anything any more. The terminal's interrupt is for
/// the tests: the end of its input follows.
const SUPERVISOR: &str = r#"
trap '' INT HUP
cd "$2" || exit 1
"$1/initdb" -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >initdb.log 2>&1 || { cat initdb.log >&2; exit 1; }
start() {
  "$1/pg_ctl" -D data -l server.log -w -o "-k '$PWD' -c listen_addresses='' -c max_connections=200 $2" start >/dev/null
}
while read -r word rest; do
  case $word in
    start) start "$1" "$rest" ;;
    stop) "$1/pg_ctl" -D data -w -m immediate stop >/dev/null ;;
    standby) touch data/standby.signal ;;
    promote) "$1/pg_ctl" -D data -w promote >/dev/null ;;
    copy) rm -rf ${rest#* } && cp -a $rest ;;
  esac
  echo "$?"
done
"$1/pg_ctl" -D data -w -m immediate stop >/dev/null 2>&1
rm -rf -- *
"#;

/// A running server.
#[derive(Debug)]
pub(super) struct Cluster {
    dir: TempDir,
    pipes: Mutex<(Option<ChildStdin>, BufReader<ChildStdout>)>,
    supervisor: Mutex<Child>,
    databases: AtomicU32,
}

impl Cluster {
    /// The server of all tests that only ask. `None`, said, where there is no PostgreSQL.
    pub(super) fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// A server for one test, which stops it.
    pub(super) fn start() -> Option<Self> {
        let wanted = env::var(WANTED).unwrap_or_default();
        if wanted == "skip" {
            println!("skipped, as {WANTED} says");
            return None;
        }
        let Some(bin) = programs() else {
            assert_ne!(wanted, "required", "PostgreSQL is not installed");
            println!("skipped: PostgreSQL is not installed, nor named by {BIN}");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let mut command = if fs::metadata("/proc/self").unwrap().uid() == 0 {
            let account = id_of(ACCOUNT);
            chown(dir.path(), Some(account), None).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--init-groups", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        command.args(["-c", SUPERVISOR, "supervisor"]).arg(bin).arg(dir.path()).env("LC_ALL", "C");
        let mut supervisor = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (supervisor.stdin.take(), supervisor.stdout.take().unwrap());
        let pipes = Mutex::new((to, BufReader::new(from)));
        let cluster = Self { dir, pipes, supervisor: Mutex::new(supervisor), databases: AtomicU32::new(0) };
        cluster.resume("");
        Some(cluster)
    }

    /// Starts it again, with more options.
    pub(super) fn resume(&self, options: &str) {
        self.tell(&format!("start {options}"));
    }

    /// Stops it at once, as a power cut would.
    pub(super) fn stop(&self) {
        self.tell("stop");
    }

    /// Starts it as a standby, of nobody.
    pub(super) fn be_standby(&self) {
        self.tell("standby");
        self.resume("");
    }

    /// Has a standby take over.
    pub(super) fn promote(&self) {
        self.tell("promote");
    }

    /// Copies its files, or a copy back over them. It is stopped.
    pub(super) fn copy(&self, from: &str, to: &str) {
        self.tell(&format!("copy {from} {to}"));
    }

    /// Gives it a certificate in a name, and says where its authority's is.
    pub(super) fn be_certified(&self, name: &str) -> PathBuf {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let path = |name: &str| self.dir.path().join(name);
        for (file, content) in
            [("authority.pem", authority.pem()), ("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
        {
            fs::write(path(file), content).unwrap();
            let owner = fs::metadata(self.dir.path()).unwrap().uid();
            chown(path(file), Some(owner), None).unwrap();
            fs::set_permissions(path(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        path("authority.pem")
    }

    /// Has it listen on the loopback interface, with its certificate, and says on which port.
    pub(super) fn listen(&self) -> u16 {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        self.stop();
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let (certificate, key) = (path("cert.pem"), path("key.pem"));
        self.resume(&format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file={certificate} -c ssl_key_file={key}"
        ));
        port
    }

    /// The ids of its processes.
    pub(super) fn processes(&self) -> Vec<String> {
        let pid = fs::read_to_string(self.dir.path().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        [pid].into_iter().chain(children.split_whitespace().map(str::to_owned)).collect()
    }

    fn tell(&self, word: &str) {
        let mut pipes = self.pipes.lock().unwrap();
        let (to, from) = &mut *pipes;
        writeln!(to.as_mut().unwrap(), "{word}").unwrap();
        let mut status = String::new();
        from.read_line(&mut status).unwrap();
        assert_eq!(status, "0\n", "{word}: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// Where all that it writes is.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The URL of one of its databases.
    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.dir.path().display())
    }

    /// A new database, and its URL.
    pub(super) async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0"));
        sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input is the supervisor's.
        self.pipes.get_mut().unwrap_or_else(PoisonError::into_inner).0 = None;
        let _ = self.supervisor.get_mut().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

/// The directory of initdb and pg_ctl, the newest one.
fn programs() -> Option<PathBuf> {
    let has = |dir: &PathBuf| dir.join("initdb").exists() && dir.join("pg_ctl").exists();
    if let Some(named) = env::var_os(BIN) {
        return Some(named.into());
    }
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = debian.map(|version| version.path().join("bin")).filter(has).collect();
    debian.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    debian.pop().or_else(|| env::split_paths(&path).find(has))
}

fn id_of(account: &str) -> u32 {
    let output = Command::new("id").args(["-u", account]).output().unwrap();
    let id = String::from_utf8(output.stdout).unwrap();
    id.trim().parse().unwrap_or_else(|_| panic!("there is no account {account} for the server"))
}
