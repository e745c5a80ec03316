//! Programs started for a measurement, stopped where they stand and let go on if need be, and what each used: processor
//! time of the whole process, from the kernel.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// How long a program has to stop; after that it is killed.
const STOP: Duration = Duration::from_secs(6);
/// `/proc` counts processor time in these (USER_HZ, which Linux has had at 100 a second for ever).
const TICK: Duration = Duration::from_millis(10);

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Processor time, in user and in kernel mode.
    pub cpu: Duration,
    /// Memory resident at this moment, in bytes.
    pub resident: u64,
}

impl Program {
    /// Starts a program; what it says goes to a file, behind what is there.
    pub fn start(name: &str, program: &Path, arguments: &[&str], log: &Path) -> Result<Self> {
        let opened = fs::OpenOptions::new().create(true).append(true).open(log);
        let log = opened.with_context(|| log.display().to_string())?;
        let child = Command::new(program)
            .args(arguments)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| program.display().to_string())?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has used.
    ///
    /// # Errors
    /// If it has ended.
    pub fn used(&mut self) -> Result<Used> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself: {status}", self.name);
        }
        Ok(used(self.child.id())?)
    }

    /// Ends it at once, whatever it is at (SIGKILL).
    ///
    /// # Errors
    /// If it has ended by itself before.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself: {status}", self.name);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    /// Asks it to stop, and kills it if it does not: nothing that was started stays behind.
    fn drop(&mut self) {
        // The id of one that has ended may be somebody else's by now.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // What stands still cannot hear; to what does not stand still, going on is nothing.
        let asked = signal(self.child.id(), "CONT").and_then(|()| signal(self.child.id(), "TERM"));
        let deadline = std::time::Instant::now() + STOP;
        while asked.is_ok() && std::time::Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // It may have ended just now: then there is nobody to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that can be stopped where it stands: it does nothing more, and does not know it, until it goes on. It goes on
/// at the latest when this is dropped.
#[derive(Debug)]
pub struct Standstill {
    id: u32,
    // Its built-in `kill` is there in a fraction of a millisecond: a program that has to be started for it comes too late
    // for what has just been acknowledged.
    shell: Child,
}

impl Standstill {
    /// Of a process, which goes on until [`Self::begin`].
    pub fn of(id: u32) -> io::Result<Self> {
        let orders = format!("while read -r name; do kill -\"$name\" {id} && echo ok || echo failed; done");
        let (stdin, stdout) = (Stdio::piped(), Stdio::piped());
        let shell =
            Command::new("sh").args(["-c", &orders]).stdin(stdin).stdout(stdout).stderr(Stdio::null()).spawn()?;
        Ok(Self { id, shell })
    }

    /// From now on it stands still.
    pub fn begin(&mut self) -> io::Result<()> {
        self.send("STOP")
    }

    /// From now on it goes on.
    pub fn end(&mut self) -> io::Result<()> {
        self.send("CONT")
    }

    fn send(&mut self, name: &str) -> io::Result<()> {
        let (Some(orders), Some(done)) = (&mut self.shell.stdin, &mut self.shell.stdout) else {
            return Err(io::Error::other("the shell has no pipes"));
        };
        orders.write_all(format!("{name}\n").as_bytes())?;
        let mut word = [0; 3];
        done.read_exact(&mut word)?;
        if &word == b"ok\n" { Ok(()) } else { Err(io::Error::other(format!("no SIG{name} for {}", self.id))) }
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        // Whoever has ended needs it no more.
        let _ = self.end();
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

fn signal(id: u32, name: &str) -> io::Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("SIG{name} to {id}: {status}"))) }
}

/// What a process has used, by its id.
pub fn used(id: u32) -> io::Result<Used> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    parse(&stat, &status).ok_or_else(|| io::Error::other(format!("/proc/{id}/stat is not as proc(5) says")))
}

/// The fields of proc(5): `utime` and `stime`, 14 and 15 of `stat`, behind a name that may hold anything; `VmRSS` of
/// `status`, in KiB.
fn parse(stat: &str, status: &str) -> Option<Used> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let cpu = TICK * (ticks()? + ticks()?);
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Used { cpu, resident: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `T` of one that stands still.
    fn state(id: u32) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    #[test]
    fn the_kernels_figures_are_read() {
        let stat = "7 (a (name) x) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1 18446744073709551615";
        let status = "Name:\tx\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse(stat, status), Some(Used { cpu: Duration::from_secs(2), resident: 1 << 20 }));
        for (stat, status) in [("", status), ("7 (x) S 1", status), (stat, ""), (stat, "VmRSS:\t1 MB\n")] {
            assert_eq!(parse(stat, status), None);
        }
        assert!(used(std::process::id()).unwrap().resident > 0);
    }

    #[test]
    fn a_program_that_has_ended_is_said_and_one_that_runs_is_stopped() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut ended = Program::start("true", Path::new("true"), &[], log.path()).unwrap();
        while ended.used().is_ok() {}
        let mut running = Program::start("sleep", Path::new("sleep"), &["60"], log.path()).unwrap();
        assert!(running.used().is_ok());
        let id = running.child.id();
        let mut standstill = Standstill::of(id).unwrap();
        standstill.begin().unwrap();
        while state(id) != Some('T') {}
        standstill.end().unwrap();
        while state(id) == Some('T') {}
        standstill.begin().unwrap();
        drop(running);
        assert!(used(id).is_err() && standstill.begin().is_err(), "it is still there");
        let killed = Program::start("sleep", Path::new("sleep"), &["60"], log.path()).unwrap();
        let id = killed.id();
        killed.kill().unwrap();
        assert!(used(id).is_err());
        assert!(ended.kill().is_err(), "it was not there any more");
        assert!(Program::start("none", Path::new("/nowhere/none"), &[], log.path()).is_err());
    }
}
