//! `init`: everything on disk, so that each program can be started alone.

use anyhow::Result;
use proto::time::{Clock, SystemClock};

use crate::{
    addresses::{Bound, Ports},
    layout::Layout,
    options::Options,
    prepare::{Lock, Plan, prepare},
};

/// Prepares the directory and says how to start its programs.
pub async fn run(options: &Options) -> Result<()> {
    let layout = Layout::new(&options.dir);
    let plan = Plan::of(options, &layout)?;
    let members = plan.members()?;
    let _lock = Lock::take(&layout)?;
    let bound = Bound::bind(&members, plan.gateways.into(), Ports::Documented).await?;
    let addresses = bound.addresses()?;
    for (taken, instead) in &bound.replaced {
        println!("port {taken} is taken, {instead} instead");
    }
    drop(bound);
    prepare(&layout, &plan, &addresses, SystemClock.now())?;
    let dir = layout.dir().display();
    println!("{dir}: {} members, {} people each, policy {:?}", members.len(), plan.people, plan.policy);
    println!("start all of it:    cargo run");
    println!("or each by itself:  cargo run -p gateway -- serve --config {dir}/gateway/gateway.toml");
    for member in members.iter().take(1) {
        println!("                    cargo run -p province-stub -- serve --config {dir}/node/{member}/node.toml");
    }
    Ok(())
}
