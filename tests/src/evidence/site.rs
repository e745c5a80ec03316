//! A node of its own and what it stores in: programs that end, and a directory that goes, when this is dropped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gateway::pki::{write_private, write_public};
use proto::member::Member;
use tempfile::TempDir;
use tokio::{task::spawn_blocking, time::Instant};
use tongxing::{desk::Desk, layout::Layout};

use super::postgres::Cluster;
use crate::load::{
    process::{Program, Used},
    programs::{self, Wanted, program},
};

/// What a node stores in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// A file in the node's directory.
    Sqlite,
    /// A server of its own, which keeps its promises (fsync).
    Postgres,
}

/// One node, running.
#[derive(Debug)]
pub struct Site {
    // Dropped in this order: whoever writes before what they write to.
    /// The node.
    pub node: Program,
    /// The server it stores on, if it does.
    pub cluster: Option<Cluster>,
    /// The desk.
    pub desk: Desk,
    /// Whose node it is.
    pub member: Member,
    dir: TempDir,
}

/// What an import said, and what it cost.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Its last line.
    pub said: String,
    /// Whether every row was taken in.
    pub well: bool,
    /// From its start to its end.
    pub took: Duration,
}

impl Site {
    /// Starts a node that has nobody.
    pub async fn start(member: Member, backend: Backend) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tongxing-evidence-").tempdir()?;
        let layout = Layout::new(dir.path());
        let wanted = Wanted { members: vec![member], gateways: 1, gateway_settings: String::new() };
        let desk = programs::ready(&layout, &wanted).await?;
        let cluster = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(on_a_server(&layout, member)?),
        };
        let node = programs::node(&layout, member)?;
        programs::listening(&desk.node_address(member)?).await?;
        Ok(Self { node, cluster, desk, member, dir })
    }

    /// A place for a file of this measurement's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Brings a file to the node as its laboratory does, with the program that everybody has for it.
    pub async fn import(&self, file: &Path) -> Result<Imported> {
        let (binary, feed) =
            (program("province-stub")?, self.desk.layout().feed(self.member, "lab-1").join("feed.toml"));
        let (file, started) = (file.to_owned(), Instant::now());
        let output = spawn_blocking(move || {
            let mut command = Command::new(binary);
            command.arg("import").arg(file).arg("--feed").arg(feed).args(["--patience", "120s"]);
            command.env("RUST_LOG", "error").stdin(Stdio::null()).output()
        });
        let output = output.await??;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(said) = text.lines().last() else {
            bail!("the import said nothing, and: {}", String::from_utf8_lossy(&output.stderr).trim());
        };
        Ok(Imported { said: said.to_owned(), well: output.status.success(), took: started.elapsed() })
    }

    /// What the node has used, and the server if there is one.
    pub fn used(&mut self) -> Result<(Used, Option<Used>)> {
        let server = self.cluster.as_ref().map(Cluster::used).transpose()?;
        Ok((self.node.used()?, server))
    }

    /// The most memory that the node has had resident, in bytes.
    pub fn peak(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.node.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("proc(5) has a VmHWM")?;
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// How many bytes the store takes on disk, its write-ahead log not counted.
    pub fn stored(&self) -> Result<u64> {
        match &self.cluster {
            Some(cluster) => cluster.size(),
            None => Ok(fs::metadata(self.desk.layout().node(self.member).join("data/node.db"))?.len()),
        }
    }
}

/// Starts a server and has the member's node store on it.
fn on_a_server(layout: &Layout, member: Member) -> Result<Cluster> {
    let cluster = Cluster::start()?;
    let dir = layout.node(member);
    write_private(&dir.join("postgres.url"), cluster.url().as_bytes())?;
    let path = dir.join("node.toml");
    let text = format!("{}\n[store]\npostgres = \"postgres.url\"\n", fs::read_to_string(&path)?);
    write_public(&path, text.as_bytes())?;
    Ok(cluster)
}
