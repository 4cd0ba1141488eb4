//! Serves the lab until it is interrupted, and says how to use it.

#![expect(clippy::print_stdout, reason = "it talks to whoever started it")]

use anyhow::{Context, Result, bail};
use aws_lab::{BUCKET, DEPLOY_ACCOUNT, KEY, Lab, REGION, STATE_ACCOUNT, Topology, cabal};

const USAGE: &str = "usage: aws-lab [--port N] [--topology users|roles|same-account]";

#[tokio::main]
async fn main() -> Result<()> {
    let mut port = 0_u16;
    let mut topology = Topology::Roles;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next();
        match (name.as_str(), value.as_deref()) {
            ("--port", Some(text)) => port = text.parse().context(USAGE)?,
            ("--topology", Some("users")) => topology = Topology::Users,
            ("--topology", Some("roles")) => topology = Topology::Roles,
            ("--topology", Some("same-account")) => topology = Topology::SameAccount,
            ("--topology", Some("same-account-role")) => topology = Topology::SameAccountRole,
            _ => bail!(USAGE),
        }
    }
    let lab = Lab::start_on(cabal(topology), ([127, 0, 0, 1], port).into()).await?;
    println!("The lab listens at {}", lab.endpoint());
    println!("State account {STATE_ACCOUNT}: bucket {BUCKET} in {REGION}, key");
    println!("  {KEY}");
    println!("Deploy account {DEPLOY_ACCOUNT}. Paste the lines of a principal into a shell:\n");
    for principal in lab.principals() {
        println!("# {principal}");
        let variables = lab.env(&principal);
        // A user has none, and that of a session before would spoil its credentials.
        if !variables.iter().any(|(name, _)| name == "AWS_SESSION_TOKEN") {
            println!("unset AWS_SESSION_TOKEN");
        }
        for (name, value) in variables {
            println!("export {name}={value}");
        }
        println!("export AWS_DEFAULT_REGION={REGION}\n");
    }
    println!("# GitHub, as a job with `id-token: write` finds it");
    for (name, value) in lab.oidc_env().into_iter().chain(lab.github_env()) {
        println!("export '{name}={value}'");
    }
    println!();
    println!("Then, for instance:");
    println!("  aws s3api head-object --bucket {BUCKET} --key production");
    println!("  terraform init -backend-config=use_path_style=true \\");
    println!("    -backend-config=skip_credentials_validation=true \\");
    println!(
        "    -backend-config=skip_requesting_account_id=true -backend-config=skip_metadata_api_check=true"
    );
    println!("\nCtrl-C ends it.");
    tokio::signal::ctrl_c().await?;
    Ok(())
}
