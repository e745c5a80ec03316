//! `init`: everything on disk, people too, so that each program can be started alone.

use anyhow::{Context, Result};
use peer::surroundings::Surroundings;
use proto::{
    member::Member,
    time::{Clock, SystemClock},
};
use province_stub::{config::Config, server::Node};

use crate::{
    addresses::{Bound, Ports},
    layout::Layout,
    options::Options,
    prepare::{Lock, Plan, prepare},
    say,
};

/// Prepares the directory and says how to start its programs.
pub async fn run(options: &Options) -> Result<()> {
    let layout = Layout::new(&options.dir);
    let plan = Plan::of(options, &layout)?;
    let members = plan.members()?;
    let _lock = Lock::take(&layout)?;
    let own = plan.own_members()?;
    let bound = Bound::bind(&own, plan.gateways.into(), Ports::Documented).await?;
    let addresses = bound.addresses()?;
    for (taken, instead) in &bound.replaced {
        say!("port {taken} is taken, {instead} instead");
    }
    drop(bound);
    prepare(&layout, &plan, &addresses, SystemClock.now())?;
    for member in &own {
        seed(&layout, *member, plan.people).await.with_context(|| format!("node of {member}"))?;
    }
    let dir = layout.dir().display();
    say!("{dir}: {} members, {} people each, policy {:?}", members.len(), plan.people, plan.policy);
    let arguments = options.arguments();
    say!("start all of it:    cargo run{}", if arguments.is_empty() { arguments } else { format!(" --{arguments}") });
    say!("or each by itself:  cargo run -p gateway -- serve --config {dir}/gateway/gateway.toml");
    for member in own.iter().take(1) {
        say!("                    cargo run -p province-stub -- serve --config {dir}/node/{member}/node.toml");
    }
    for (member, address) in &plan.external {
        say!("not ours:           the node of {member} at {address}, with what is in {dir}/node/{member}");
    }
    Ok(())
}

/// Puts a member's people into its node's store.
async fn seed(layout: &Layout, member: Member, people: u32) -> Result<()> {
    let config = Config::read(&layout.node(member).join("node.toml"))?;
    let node = Node::open(config, Surroundings::system()).await?;
    node.handle().seed(people).await?;
    node.close().await;
    Ok(())
}
