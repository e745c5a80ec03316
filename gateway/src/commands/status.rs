//! `gateway status`: asks the gateway beside it, on its private listener, how it and the members are.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use gateway::{
    config::Config,
    status::{Ends, MemberReport, Report},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::commands::BAD_CONFIGURATION;

/// How long the gateway has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The longest answer: 33 members need 16 KiB, and 160 KiB more where each had all the authorities that are told apart.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// How the gateway beside this command is.
#[derive(clap::Args)]
pub(crate) struct Status {
    /// The gateway's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Prints it; exits with 0 only if all is well.
    pub(crate) async fn run(self) -> ExitCode {
        let config = match Config::read(&self.config) {
            Ok(config) => config,
            Err(error) => {
                eprintln!("gateway: {error:#}");
                return ExitCode::from(BAD_CONFIGURATION);
            }
        };
        match self.ask(beside(config.private_listen)).await {
            Ok(report) if report.problems.is_empty() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("gateway: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    async fn ask(&self, address: SocketAddr) -> Result<Report> {
        let asked = timeout(ANSWER_WITHIN, get(address, "/status")).await;
        let json = asked.unwrap_or_else(|_| bail!("no answer within {ANSWER_WITHIN:?}"));
        let json = json.with_context(|| format!("http://{address}/status: is this gateway running?"))?;
        let report: Report =
            serde_json::from_str(&json).with_context(|| format!("http://{address}/status is no gateway's"))?;
        let text = if self.json { format!("{json}\n") } else { render(&report) };
        // A reader that has gone away (`… | head`) is no error.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(report)
    }
}

/// Where a listener is found on its own machine.
fn beside(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// The body that a private listener answers with.
async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    // Of HTTP/1.0, so that the end of the answer is the end of the connection.
    socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    socket.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not HTTP")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => bail!("{}", head.lines().next().unwrap_or_default()),
    }
}

fn render(report: &Report) -> String {
    let mut lines = vec![
        format!("gateway      {}, {}, running {}", report.id, report.software, span(report.running_seconds)),
        format!("certificate  {}", left(report.certificate.as_ref())),
        format!("trust list   version {}, {}", report.trust_list.version, left(Some(&report.trust_list.ends))),
        format!("policy       version {}, {}", report.policy.version, left(Some(&report.policy.ends))),
        String::new(),
    ];
    let header = ["code", "member", "health", "software", "list", "policy", "seen", "clock", "certificate"];
    let header = header.map(str::to_owned);
    let rows: Vec<_> = std::iter::once((header, "health code".to_owned()))
        .chain(report.members.iter().map(|member| (columns(member), member.health_code.clone())))
        .collect();
    let width = |column: usize| rows.iter().map(|(row, _)| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    for (row, last) in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  "));
        // Chinese is twice as wide as it is long: it comes last.
        lines.push(format!("{}{last}", cells.collect::<String>()));
    }
    let suspended = report.members.iter().filter_map(|member| Some((member, member.suspension.as_ref()?)));
    lines.extend(suspended.map(|(member, out)| {
        format!("suspended    {} {}, {}: {}", member.code, member.name, left(Some(&out.ends)), out.reason)
    }));
    lines.extend([
        String::new(),
        format!("outcomes     {}", counts(&report.outcomes)),
        format!("refusals     {}", counts(&report.refusals)),
    ]);
    lines.extend(report.unsubstantiated.iter().map(|of| {
        let alarm = if of.alarm_since.is_some() { ", alarm" } else { "" };
        format!("no basis     {}; {} answers since the start{alarm}", of.summary(), of.answers)
    }));
    if report.problems.is_empty() {
        lines.push("problems     none".to_owned());
    }
    lines.extend(report.problems.iter().map(|problem| format!("problem      {problem}")));
    lines.join("\n") + "\n"
}

const COLUMNS: usize = 9;

fn columns(member: &MemberReport) -> [String; COLUMNS] {
    let version = |version: u64| if version == 0 { "-".to_owned() } else { version.to_string() };
    let seen = member.seen_seconds_ago;
    [
        member.code.clone(),
        member.name.clone(),
        member.health.clone(),
        if member.software.is_empty() { "-".to_owned() } else { member.software.clone() },
        version(member.trust_list_version),
        version(member.policy_version),
        seen.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", span(seconds))),
        seen.map_or_else(|| "-".to_owned(), |_| format!("{:+} s", member.clock_offset_seconds)),
        left(member.certificate.as_ref()),
    ]
}

fn left(ends: Option<&Ends>) -> String {
    match ends.map(|ends| ends.seconds_left) {
        None => "not seen yet".to_owned(),
        Some(0) => "expired".to_owned(),
        Some(seconds) => format!("{} left", span(seconds)),
    }
}

/// Whole days, hours, minutes or seconds: the largest unit of which there are two.
fn span(seconds: u64) -> String {
    let units = [(24 * 3600, "days"), (3600, "hours"), (60, "min")];
    let unit = units.iter().find(|(length, _)| seconds >= 2 * length);
    unit.map_or_else(|| format!("{seconds} s"), |(length, unit)| format!("{} {unit}", seconds / length))
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none since the start".to_owned();
    }
    counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{
        "id": "gateway/replica/1", "software": "gateway/0.1.0", "time": "2027-01-15T08:00:00Z", "running_seconds": 7300,
        "certificate": { "expire_time": "2027-02-14T08:00:00Z", "seconds_left": 2592000 },
        "trust_list": { "version": 3, "expire_time": "2027-01-15T08:00:00Z", "seconds_left": 0 },
        "policy": { "version": 1, "expire_time": "2027-01-22T08:00:00Z", "seconds_left": 604800 },
        "members": [
            { "code": "11", "name": "Beijing", "health_code": "北京健康宝", "health": "serving", "software": "node/1",
              "trust_list_version": 3, "policy_version": 1, "seen_seconds_ago": 4, "clock_offset_seconds": 1,
              "certificate": { "expire_time": "2027-01-16T08:00:00Z", "seconds_left": 86400 } },
            { "code": "44", "name": "Guangdong", "health_code": "粤康码", "health": "suspended", "software": "",
              "trust_list_version": 0, "policy_version": 0, "seen_seconds_ago": null, "clock_offset_seconds": 0,
              "certificate": null,
              "suspension": { "reason": "drill", "expire_time": "2027-01-18T08:00:00Z", "seconds_left": 259200 } }
        ],
        "outcomes": { "status": 12, "unknown_traveler": 1 }, "refusals": {},
        "unsubstantiated": [
            { "member": "41", "name": "Henan", "authority": "41/finance-office", "answers": 70, "travelers": 31,
              "at_least": false, "usual_travelers": 1, "window_seconds": 600, "alarm_since": "2027-01-15T07:58:00Z" },
            { "member": "41", "name": "Henan", "authority": "none", "answers": 1, "travelers": 0,
              "at_least": false, "usual_travelers": 0, "window_seconds": 600, "alarm_since": null }
        ],
        "problems": ["the trust list expired at 2027-01-15T08:00:00Z", "51 Sichuan: unknown"]
    }"#;

    #[test]
    fn a_report_is_a_page() {
        let page = render(&serde_json::from_str(REPORT).unwrap());
        assert_eq!(
            page,
            "gateway      gateway/replica/1, gateway/0.1.0, running 2 hours\n\
             certificate  30 days left\n\
             trust list   version 3, expired\n\
             policy       version 1, 7 days left\n\
             \n\
             code  member     health     software  list  policy  seen     clock  certificate    health code\n\
             11    Beijing    serving    node/1    3     1       4 s ago  +1 s   24 hours left  北京健康宝\n\
             44    Guangdong  suspended  -         -     -       never    -      not seen yet   粤康码\n\
             suspended    44 Guangdong, 3 days left: drill\n\
             \n\
             outcomes     status 12, unknown_traveler 1\n\
             refusals     none since the start\n\
             no basis     41 Henan by 41/finance-office: 31 travelers in 10m, usually 1; 70 answers since the start, alarm\n\
             no basis     41 Henan by no authority: 0 travelers in 10m, usually 0; 1 answers since the start\n\
             problem      the trust list expired at 2027-01-15T08:00:00Z\n\
             problem      51 Sichuan: unknown\n"
        );
    }

    #[test]
    fn a_listener_on_every_interface_is_found_on_this_machine() {
        for (listener, address) in
            [("0.0.0.0:7900", "127.0.0.1:7900"), ("[::]:7900", "[::1]:7900"), ("127.0.0.2:7900", "127.0.0.2:7900")]
        {
            assert_eq!(beside(listener.parse().unwrap()), address.parse().unwrap());
        }
    }

    #[tokio::test]
    async fn what_is_no_report_is_said() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in ["HTTP/1.0 404 Not Found\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n{}", "nonsense"] {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await.unwrap();
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let status = Status { config: PathBuf::new(), json: false };
        for said in ["404 Not Found", "missing field", "not HTTP", "is this gateway running?"] {
            let error = format!("{:#}", status.ask(address).await.unwrap_err());
            assert!(error.contains(said), "{said} in {error}");
        }
    }
}
