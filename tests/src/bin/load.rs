//! `load`: an open-loop load driver, and what a recognition costs beside a bare echo. Only addresses of this machine.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use peer::{
    dial::{self, DialLimits},
    serve::Standing,
    verifier::Expected,
};
use prost::Message as _;
use proto::{
    contract::recognition::{
        Freshness, RecognizeRequest, RecognizeResponse, Source, freshness::Requirement,
        recognition_service_client::RecognitionServiceClient,
    },
    member::Member,
    random::SystemRandom,
    refusal::{Refusal, reason_name},
    time::SystemClock,
    venue::VenueId,
};
use tests::load::{
    drive::drive,
    echo,
    process::{Program, Used},
    programs::{self, Programs, Wanted, listening},
    report::{Round, median},
    schedule::{Arrivals, schedule},
    travelers::Travelers,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tongxing::{desk::Desk, layout::Layout};
use tonic::{Status, transport::Channel};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Load at a rate, on this machine.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the gateway of a running federation.
    Recognize {
        /// Its state directory.
        #[arg(long, default_value = ".tongxing")]
        dir: PathBuf,
        /// Ask for answers straight from home, instead of what is held.
        #[arg(long)]
        from_home: bool,
        #[command(flatten)]
        demand: Demand,
    },
    /// Start gateway, nodes and echo as programs of their own, and ask echo and gateway by turns, the gateway for answers
    /// straight from home and for what it holds.
    Compare {
        /// How many rounds of each.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        #[command(flatten)]
        demand: Demand,
    },
    /// Serve the echo.
    #[command(hide = true)]
    EchoServer {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        answer: PathBuf,
    },
}

/// What is demanded.
#[derive(Args, Clone)]
struct Demand {
    /// Requests a second.
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    rate: f64,
    /// How long.
    #[arg(long, default_value = "10s", value_parser = humantime_serde::re::humantime::parse_duration)]
    duration: Duration,
    /// How long before that, uncounted.
    #[arg(long, default_value = "2s", value_parser = humantime_serde::re::humantime::parse_duration)]
    warmup: Duration,
    /// How requests are spread.
    #[arg(long, value_enum, default_value_t = Arrivals::Uniform)]
    arrivals: Arrivals,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests under way at most; what is due beyond is counted and not sent.
    #[arg(long, default_value_t = 512)]
    max_in_flight: usize,
    /// Tokens in use; each request has a proof of its own.
    #[arg(long, default_value_t = 256)]
    tokens: usize,
    /// The travelers' members.
    #[arg(long, value_delimiter = ',', default_value = "44,51")]
    members: Vec<Member>,
    /// The venue that asks.
    #[arg(long, default_value = "11/station/beijing-west")]
    venue: VenueId,
    /// One JSON object a round.
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate: &f64| (0.1..=1e6).contains(rate)).ok_or_else(|| "0.1 to 1000000".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Recognize { dir, from_home, demand } => recognize(&dir, from_home, &demand).await,
        Command::Compare { rounds, demand } => compare(rounds, &demand).await,
        Command::EchoServer { dir, listen, answer } => echo_server(&dir, listen, &answer).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn recognize(dir: &Path, from_home: bool, demand: &Demand) -> Result<()> {
    let desk = Desk::open(&Layout::new(dir), Arc::new(SystemClock))?;
    let travelers = Arc::new(Travelers::enroll(&desk, &demand.members, demand.tokens).await?);
    let standing = desk.standing(&desk.layout().venue(&demand.venue))?;
    let asking = Asking { from_home, ..Asking::new(&standing, &desk.gateway_address()?, demand)? };
    let round = asking.round("recognize", travelers, demand, &mut []).await?;
    say(&round, demand);
    Ok(())
}

/// Alternates echo and both kinds of recognition, so that whatever else this machine does meets both.
async fn compare(rounds: usize, demand: &Demand) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("tongxing-load-").tempdir()?;
    let layout = Layout::new(temporary.path());
    let (desk, mut programs) = start(&layout, demand).await?;
    let travelers = Arc::new(Travelers::enroll(&desk, &demand.members, demand.tokens).await?);
    let standing = desk.standing(&desk.layout().venue(&demand.venue))?;
    let cached = Asking::new(&standing, &desk.gateway_address()?, demand)?;
    let home = Asking { from_home: true, ..cached.clone() };
    let answer = layout.dir().join("answer");
    std::fs::write(&answer, home.answer(travelers.request(0, &demand.venue)).await?)?;
    let (mut echo_program, address) = start_echo(&layout, &answer).await?;
    let echo = Asking::new(&standing, &address, demand)?;
    let (mut echoes, mut from_home, mut from_cache) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let round = echo.round("echo", travelers.clone(), demand, std::slice::from_mut(&mut echo_program)).await?;
        echoes.extend(round.cpu_us.values().copied());
        say(&round, demand);
        for (what, asking, costs) in [("from home", &home, &mut from_home), ("from cache", &cached, &mut from_cache)] {
            let round = asking.round(what, travelers.clone(), demand, &mut programs).await?;
            costs.extend(round.cpu_us.get("gateway").copied());
            say(&round, demand);
        }
    }
    if let (Some(echo), Some(home), Some(cache)) = (median(echoes), median(from_home), median(from_cache)) {
        let beside = |gateway: f64| format!("{gateway:.0} µs, {:.1} times", gateway / echo);
        println!(
            "median CPU a request: echo {echo:.0} µs; gateway from home {}, from cache {}",
            beside(home),
            beside(cache)
        );
    }
    Ok(())
}

fn say(round: &Round, demand: &Demand) {
    if demand.json {
        // A struct of numbers and words has a JSON form.
        println!("{}", serde_json::to_string(round).unwrap_or_default());
    } else {
        println!("{}", round.line());
    }
}

/// Connections to one address, and what is asked there.
#[derive(Clone)]
struct Asking {
    clients: Vec<RecognitionServiceClient<Channel>>,
    /// Whether answers are to come straight from home.
    from_home: bool,
}

impl Asking {
    fn new(standing: &Standing, address: &str, demand: &Demand) -> Result<Self> {
        let address: SocketAddr = address.parse().with_context(|| format!("{address}: not IP:PORT"))?;
        if !address.ip().is_loopback() {
            bail!("{address}: only this machine's own addresses are loaded");
        }
        let limits = DialLimits { connect_timeout: TIMEOUT, ..DialLimits::default() };
        let dial = |_| {
            let channel = dial::channel(standing, &address.to_string(), Expected::Gateway, limits)?;
            Ok(RecognitionServiceClient::new(channel))
        };
        Ok(Self { clients: (0..demand.connections.max(1)).map(dial).collect::<Result<_>>()?, from_home: false })
    }

    /// One real answer's bytes.
    async fn answer(&self, request: RecognizeRequest) -> Result<Vec<u8>> {
        let client = self.clients.first().context("there is a connection")?;
        Ok(client.clone().recognize(request).await?.into_inner().encode_to_vec())
    }

    async fn round(
        &self,
        what: &str,
        travelers: Arc<Travelers>,
        demand: &Demand,
        programs: &mut [Program],
    ) -> Result<Round> {
        let send = |number: usize| {
            let (mut client, travelers) = (self.clients[number % self.clients.len()].clone(), travelers.clone());
            let (venue, from_home) = (demand.venue.clone(), self.from_home);
            async move {
                let requirement = from_home.then_some(Requirement::FromHome(true));
                let freshness = requirement.map(|requirement| Freshness { requirement: Some(requirement) });
                let request = RecognizeRequest { freshness, ..travelers.request(number, &venue) };
                let mut request = tonic::Request::new(request);
                request.set_timeout(TIMEOUT);
                client.recognize(request).await.map_or_else(|status| word(&status), |answer| good(answer.get_ref()))
            }
        };
        let times = |lasts| schedule(demand.arrivals, demand.rate, lasts, &SystemRandom);
        drive(&times(demand.warmup), demand.max_in_flight, send).await?;
        let before: Vec<Used> = programs.iter_mut().map(Program::used).collect::<Result<_>>()?;
        let driven = drive(&times(demand.duration), demand.max_in_flight, send).await?;
        let mut round = Round::new(what, demand.rate, &driven);
        for (program, before) in programs.iter_mut().zip(before) {
            let after = program.used()?;
            round.cost(program.name(), after.cpu.saturating_sub(before.cpu), after.resident);
        }
        Ok(round)
    }
}

/// How a call ended well: with an answer, or with one that was held.
fn good(answer: &RecognizeResponse) -> String {
    if answer.source() == Source::Cache { "OK held".to_owned() } else { "OK".to_owned() }
}

/// How a call that failed ended: its documented reason.
fn word(status: &Status) -> String {
    Refusal::reason_of(status).map_or_else(|| format!("{:?}", status.code()), |reason| reason_name(reason).to_owned())
}

/// Prepares a federation and starts its gateway and nodes, each a program of its own.
async fn start(layout: &Layout, demand: &Demand) -> Result<(Desk, Vec<Program>)> {
    let mut members = demand.members.clone();
    members.push(demand.venue.member());
    let desk = programs::ready(layout, &Wanted { members, gateways: 1, gateway_settings: String::new() }).await?;
    let Programs { gateways, nodes } = Programs::start(&desk).await?;
    Ok((desk, nodes.into_values().chain(gateways).collect()))
}

async fn start_echo(layout: &Layout, answer: &Path) -> Result<(Program, String)> {
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
    let (dir, answer) = (layout.dir().display().to_string(), answer.display().to_string());
    let arguments = ["echo-server", "--dir", &dir, "--listen", &address, "--answer", &answer];
    let echo = Program::start("echo", &std::env::current_exe()?, &arguments, &layout.dir().join("echo.log"))?;
    listening(&address).await?;
    Ok((echo, address))
}

async fn echo_server(dir: &Path, listen: SocketAddr, answer: &Path) -> Result<()> {
    let layout = Layout::new(dir);
    let standing = Desk::open(&layout, Arc::new(SystemClock))?.standing(&layout.gateway(1))?;
    let stop = CancellationToken::new();
    peer::serve::stop_on_signal(stop.clone())?;
    echo::serve(TcpListener::bind(listen).await?, standing, &std::fs::read(answer)?, stop).await
}
