//! A PostgreSQL server of a measurement's own, which keeps its promises (fsync); it ends, and its directory goes, when this is dropped.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::load::process::{self, Used};

/// The server's account, when the measurement is root's: it serves nobody as root.
const ACCOUNT: &str = "postgres";
/// The database that a node stores in.
const DATABASE: &str = "node";
/// How often a start is tried: a server that was killed leaves processes that end a moment later.
const STARTS: u32 = 50;
const BETWEEN_STARTS: Duration = Duration::from_millis(200);

/// A running server.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    bin: PathBuf,
    as_account: bool,
}

impl Cluster {
    /// Makes a server with one empty database.
    ///
    /// # Errors
    /// If PostgreSQL is not installed: the directory of `initdb` and `pg_ctl` is TONGXING_POSTGRES_BIN, Debian's, or on the PATH.
    pub fn start() -> Result<Self> {
        let bin = programs().context("PostgreSQL is not installed: there is no initdb")?;
        let dir = tempfile::Builder::new().prefix("tongxing-postgres-").tempdir()?;
        let as_account = fs::metadata("/proc/self")?.uid() == 0;
        if as_account {
            chown(dir.path(), Some(account()?), None)?;
        }
        let cluster = Self { dir, bin, as_account };
        let data = cluster.data();
        let made = ["-D", &data, "-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "--locale=C"];
        cluster.run("initdb", &made)?;
        cluster.resume()?;
        let socket = cluster.dir.path().display().to_string();
        cluster.run("createdb", &["-h", &socket, "-U", ACCOUNT, DATABASE])?;
        Ok(cluster)
    }

    /// Starts it again.
    pub fn resume(&self) -> Result<()> {
        let options = format!("-k '{}' -c listen_addresses='' -c max_connections=100", self.dir.path().display());
        let log = self.dir.path().join("server.log").display().to_string();
        for _ in 1..STARTS {
            if self.run("pg_ctl", &["-D", &self.data(), "-l", &log, "-w", "-o", &options, "start"]).is_ok() {
                return Ok(());
            }
            thread::sleep(BETWEEN_STARTS);
        }
        bail!("the server does not start: {}", fs::read_to_string(log).unwrap_or_default())
    }

    /// Kills all of it (SIGKILL).
    pub fn kill(&self) -> Result<()> {
        let processes: Vec<_> = self.processes()?.iter().map(u32::to_string).collect();
        // Some may end by themselves in the meantime.
        let _ = Command::new("kill").arg("-KILL").args(processes).stderr(Stdio::null()).status()?;
        Ok(())
    }

    /// Where a node finds its database.
    pub fn url(&self) -> String {
        format!("postgres://{ACCOUNT}@localhost/{DATABASE}?host={}", self.dir.path().display())
    }

    /// What its processes have used; of those that have ended nobody knows.
    pub fn used(&self) -> Result<Used> {
        let used = self.processes()?.into_iter().filter_map(|id| process::used(id).ok());
        Ok(used.fold(Used::default(), |sum, used| Used {
            cpu: sum.cpu + used.cpu,
            resident: sum.resident + used.resident,
        }))
    }

    /// How many bytes its database takes.
    pub fn size(&self) -> Result<u64> {
        let socket = self.dir.path().display().to_string();
        let ask = format!("SELECT pg_database_size('{DATABASE}')");
        let said = self.run("psql", &["-h", &socket, "-U", ACCOUNT, "-d", DATABASE, "-Atc", &ask])?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().parse()?)
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// The server's processes, the first one its own.
    fn processes(&self) -> Result<Vec<u32>> {
        let path = Path::new(&self.data()).join("postmaster.pid");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let server: u32 = text.lines().next().unwrap_or_default().parse().context("it has no process id")?;
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap_or_default();
        Ok(std::iter::once(server).chain(children.split_whitespace().filter_map(|id| id.parse().ok())).collect())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let path = self.bin.join(program);
        let mut command = if self.as_account {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--init-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.args(arguments).current_dir(self.dir.path()).env("LC_ALL", "C").stdin(Stdio::null());
        // A server that is started keeps what it was given to write to: nobody waits for its end.
        let said = || if program == "pg_ctl" { Stdio::null() } else { Stdio::piped() };
        let output = command.stdout(said()).stderr(said()).spawn()?.wait_with_output()?;
        if !output.status.success() {
            bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Whoever was killed is not there to be stopped.
        let _ = self.run("pg_ctl", &["-D", &self.data(), "-w", "-m", "immediate", "stop"]);
    }
}

/// The directory of initdb and pg_ctl, the newest one.
fn programs() -> Option<PathBuf> {
    let has = |dir: &PathBuf| dir.join("initdb").exists() && dir.join("pg_ctl").exists();
    if let Some(named) = env::var_os("TONGXING_POSTGRES_BIN") {
        return Some(named.into());
    }
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = debian.map(|version| version.path().join("bin")).filter(has).collect();
    debian.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    debian.pop().or_else(|| env::split_paths(&path).find(has))
}

fn account() -> Result<u32> {
    let output = Command::new("id").args(["-u", ACCOUNT]).output()?;
    let id = String::from_utf8_lossy(&output.stdout);
    id.trim().parse().with_context(|| format!("there is no account {ACCOUNT} for the server"))
}
