//! One screen: where everything is, and what to type next.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lauf_iam::Iam;
use lauf_model::Project;
use lauf_model::url::Site;

use crate::settings::Settings;

pub(crate) struct Facts<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) listen: SocketAddr,
    pub(crate) site: &'a Site,
    pub(crate) project: &'a Project,
    pub(crate) iam: &'a Iam,
    pub(crate) ca_file: &'a Path,
    pub(crate) egress: bool,
    pub(crate) adopted: usize,
    pub(crate) ready_in: Duration,
}

pub(crate) fn print(facts: &Facts<'_>) {
    let Facts {
        settings,
        listen,
        site,
        project,
        ..
    } = facts;
    let region = &settings.regions[0];
    println!("Lauf is ready ({} ms).", facts.ready_in.as_millis());
    println!();
    println!("  APIs, registry, proxy   http://{listen}");
    println!(
        "  services                {}",
        site.url("NAME", project.number, region, None)
    );
    println!(
        "  project, region         {} ({}), {region}",
        project.id, project.number
    );
    println!("  data                    {}", settings.data.display());
    println!(
        "  administrator's token   {}",
        facts.iam.token_file().display()
    );
    println!("  certificate authority   {}", facts.ca_file.display());
    if !facts.egress {
        let why = if settings.egress == Some(false) {
            "as the settings say"
        } else {
            "install nftables (apt install nftables), then `lauf down` and `lauf up`"
        };
        println!("  egress                  off: {why}");
    }
    if facts.adopted > 0 {
        println!(
            "  adopted                 {} running instances",
            facts.adopted
        );
    }
    println!();
    println!("Next:");
    println!("  lauf image pack DIR -t hello --entrypoint /hello   make an image from a folder");
    println!("  lauf deploy hello --image hello --allow-unauthenticated");
    println!("  lauf gcloud setup                                  then use gcloud as ever");
}
