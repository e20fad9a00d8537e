//! What is done with a machine besides its object: `rvm start`, `pause`, `guestosinfo` and so on, as virtctl asks and says it.

use anyhow::{Context, Result, anyhow, bail};
use rvm_types::manifest;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::story::until_it_runs;
use super::{bare_name, read_manifests};
use crate::args::{
    AddVolume, Document, Expand, Force, Freeze, Instance, MachineVerb, Pause, PauseKind, Rehearsal,
    RemoveVolume, Restart, Start, Vnc, VncVerb,
};
use crate::cluster::{Cluster, Resource};
use crate::screen::say;
use crate::signals::unless_interrupted;

/// What is done with a machine by a PUT.
struct Action {
    resource: Resource,
    /// The subresource.
    path: &'static str,
    /// As in "was scheduled to …".
    verb: &'static str,
    /// As in "Error …".
    doing: &'static str,
}

const START: Action = Action::of_machine("start", "starting");
const STOP: Action = Action::of_machine("stop", "stopping");
const RESTART: Action = Action::of_machine("restart", "restarting");
const PAUSE: Action = Action::of_instance("pause", "pause", "pausing");
const UNPAUSE: Action = Action::of_instance("unpause", "unpause", "unpausing");
const RESET: Action = Action::of_instance("reset", "reset", "resetting");
const SOFT_REBOOT: Action = Action::of_instance("softreboot", "soft-reboot", "soft rebooting");
const FREEZE: Action = Action::of_instance("freeze", "freeze", "freezing");
const UNFREEZE: Action = Action::of_instance("unfreeze", "unfreeze", "unfreezing");

/// What a guest is asked.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// Which system it is.
    System,
    /// Who is logged in.
    Users,
    /// Which file systems it has mounted.
    FileSystems,
}

/// Does it.
pub async fn run(cluster: &Cluster, verb: &MachineVerb) -> Result<()> {
    match verb {
        MachineVerb::Start(args) => start(cluster, args).await,
        MachineVerb::Restart(args) => restart(cluster, args).await,
        MachineVerb::Pause(args) => toggle(cluster, args, &PAUSE).await,
        MachineVerb::Unpause(args) => toggle(cluster, args, &UNPAUSE).await,
        MachineVerb::SoftReboot(args) => SOFT_REBOOT.act(cluster, &args.name, None).await,
        MachineVerb::Reset(args) => RESET.act(cluster, &args.name, None).await,
        MachineVerb::Freeze(args) => freeze(cluster, args).await,
        MachineVerb::Unfreeze(args) => UNFREEZE.act(cluster, &args.name, None).await,
        MachineVerb::Guestosinfo(args) => ask(cluster, args, Question::System).await,
        MachineVerb::Userlist(args) => ask(cluster, args, Question::Users).await,
        MachineVerb::Fslist(args) => ask(cluster, args, Question::FileSystems).await,
        MachineVerb::Vnc(args) => vnc(cluster, args).await,
        MachineVerb::AddVolume(args) => add_volume(cluster, args).await,
        MachineVerb::RemoveVolume(args) => remove_volume(cluster, args).await,
        MachineVerb::Expand(args) => expand(cluster, args).await,
    }
}

async fn start(cluster: &Cluster, args: &Start) -> Result<()> {
    let mut options = args.rehearsal.options()?;
    if args.paused {
        options["paused"] = true.into();
    }
    START.act(cluster, &args.name, Some(&options)).await?;
    if !args.wait || args.rehearsal.dry_run {
        return Ok(());
    }
    let name = bare_name(&args.name)?;
    let path = cluster.object(Resource::Instance, name);
    let patience = args.patience.timeout;
    let running = timeout(
        patience,
        unless_interrupted(until_it_runs(cluster, name, &path, true)),
    )
    .await;
    running.with_context(|| format!("{name} does not run after {}s", patience.as_secs()))?
}

/// Ends a VirtualMachine.
pub async fn stop(cluster: &Cluster, name: &str, force: &Force, rehearsal: &Rehearsal) -> Result<()> {
    let mut options = rehearsal.options()?;
    if let Some(seconds) = force.seconds()? {
        options["gracePeriod"] = seconds.into();
    }
    STOP.act(cluster, name, Some(&options)).await
}

async fn restart(cluster: &Cluster, args: &Restart) -> Result<()> {
    let mut options = args.rehearsal.options()?;
    if let Some(seconds) = args.force.seconds()? {
        options["gracePeriodSeconds"] = seconds.into();
    }
    RESTART.act(cluster, &args.name, Some(&options)).await
}

async fn freeze(cluster: &Cluster, args: &Freeze) -> Result<()> {
    let options = json!({"unfreezeTimeout": format!("{}s", args.unfreeze_timeout.as_secs())});
    FREEZE.act(cluster, &args.name, Some(&options)).await
}

/// Prints what a guest says of itself.
async fn ask(cluster: &Cluster, args: &Instance, question: Question) -> Result<()> {
    let (path, what) = match question {
        Question::System => ("guestosinfo", "getting guestosinfo"),
        Question::Users => ("userlist", "listing users"),
        Question::FileSystems => ("filesystemlist", "listing filesystems"),
    };
    let name = bare_name(&args.name)?;
    let said = cluster.get(&cluster.below(Resource::Instance, name, path)).await;
    let said = said.map_err(|why| anyhow!("Error {what} of VirtualMachineInstance {name}, {why}"))?;
    Ok(say(&serde_json::to_string_pretty(&said)?)?)
}

/// Asks for a display, which is refused with the reason.
async fn vnc(cluster: &Cluster, args: &Vnc) -> Result<()> {
    let (name, what, cannot) = match (&args.verb, &args.name) {
        (Some(VncVerb::Screenshot(args)), _) => {
            let what = format!("vnc/screenshot?moveCursor={}", args.move_cursor);
            (bare_name(&args.name)?, what, "Can't access VMI")
        }
        (None, name) => {
            let name = name.as_deref().context("a machine has to be named")?;
            (bare_name(name)?, "vnc".to_owned(), "can't access VMI")
        }
    };
    let asked = cluster
        .ask("GET", &cluster.below(Resource::Instance, name, &what), Vec::new())
        .await;
    match asked {
        Err(why) => bail!("{cannot} {name}: {why}"),
        Ok(_) => bail!("{cannot} {name}: it has a display, and rvm has no viewer"),
    }
}

async fn expand(cluster: &Cluster, args: &Expand) -> Result<()> {
    let vm = match (&args.vm, &args.file) {
        (Some(name), _) => {
            let path = cluster.below(Resource::Machine, name, "expand-spec");
            let asked = cluster.get(&path).await;
            asked.map_err(|why| {
                anyhow!(
                    "error expanding VirtualMachine - {name} in namespace - {}: {why}",
                    cluster.namespace()
                )
            })?
        }
        (None, file) => {
            let objects = read_manifests(file.as_slice())?;
            let [vm] = objects.as_slice() else {
                bail!("one VirtualMachine is expanded at a time");
            };
            let said = cluster
                .put(&cluster.in_namespace("expand-vm-spec"), Some(vm))
                .await;
            let said = said.map_err(|why| anyhow!("error expanding VirtualMachine: {why}"))?;
            serde_json::from_str(&said).context("the server sent something that is no JSON")?
        }
    };
    let text = match args.output {
        Document::Yaml => manifest::to_yaml(&vm)?,
        Document::Json => serde_json::to_string_pretty(&vm)?,
    };
    Ok(say(text.trim_end())?)
}

async fn add_volume(cluster: &Cluster, args: &AddVolume) -> Result<()> {
    let mut options = args.rehearsal.options()?;
    let claim = &args.volume_name;
    let disk = args.disk_name.as_ref().unwrap_or(claim);
    options["name"] = disk.clone().into();
    options["disk"] = json!({"serial": args.serial.as_ref().unwrap_or(disk)});
    options["disk"][&args.disk_type] = json!({"bus": args.bus});
    if let Some(cache) = &args.cache {
        options["disk"]["cache"] = cache.clone().into();
    }
    options["volumeSource"] = json!({"persistentVolumeClaim": {"claimName": claim, "hotpluggable": true}});
    let name = bare_name(&args.name)?;
    // A VirtualMachine keeps it, and passes it on to its instance; an instance of none has it alone.
    let path = |resource| cluster.below(resource, name, "addvolume");
    let body = options.to_string().into_bytes();
    let asked = match cluster.ask("PUT", &path(Resource::Machine), body.clone()).await {
        Err(said) if said.is_not_found() => cluster.ask("PUT", &path(Resource::Instance), body).await,
        asked => asked,
    };
    asked.map_err(|why| anyhow!("error adding volume, {why}"))?;
    Ok(say(&format!(
        "Successfully submitted add volume request to VM {name} for volume {claim}"
    ))?)
}

async fn remove_volume(cluster: &Cluster, args: &RemoveVolume) -> Result<()> {
    let mut options = args.rehearsal.options()?;
    options["name"] = args.volume_name.clone().into();
    let resource = if args.persist {
        Resource::Machine
    } else {
        Resource::Instance
    };
    let name = bare_name(&args.name)?;
    let asked = cluster
        .put(&cluster.below(resource, name, "removevolume"), Some(&options))
        .await;
    asked.map_err(|why| anyhow!("error removing volume, {why}"))?;
    Ok(say(&format!(
        "Successfully submitted remove volume request to VM {name} for volume {}",
        args.volume_name
    ))?)
}

/// A VirtualMachine has to be there; it is its instance that is paused.
async fn toggle(cluster: &Cluster, args: &Pause, action: &Action) -> Result<()> {
    let options = args.rehearsal.options()?;
    let name = &args.name;
    if args.kind == PauseKind::Vm {
        let asked = cluster.get(&cluster.object(Resource::Machine, name)).await;
        asked.map_err(|why| anyhow!("Error getting VirtualMachine {name}: {why}"))?;
    }
    action.act(cluster, name, Some(&options)).await
}

// === impl Action ===

impl Action {
    const fn of_machine(verb: &'static str, doing: &'static str) -> Self {
        Self {
            resource: Resource::Machine,
            path: verb,
            verb,
            doing,
        }
    }

    const fn of_instance(path: &'static str, verb: &'static str, doing: &'static str) -> Self {
        Self {
            resource: Resource::Instance,
            path,
            verb,
            doing,
        }
    }

    async fn act(&self, cluster: &Cluster, name: &str, options: Option<&Value>) -> Result<()> {
        let name = bare_name(name)?;
        let done = cluster
            .put(&cluster.below(self.resource, name, self.path), options)
            .await;
        let doing = self.doing;
        let kind = match self.resource {
            Resource::Machine => {
                done.map_err(|why| anyhow!("Error {doing} VirtualMachine {why}"))?;
                "VM"
            }
            resource => {
                done.map_err(|why| anyhow!("Error {doing} {} {name}: {why}", resource.kind()))?;
                "VMI"
            }
        };
        Ok(say(&format!("{kind} {name} was scheduled to {}", self.verb))?)
    }
}

// === impl Rehearsal ===

impl Rehearsal {
    /// What goes along with a request.
    fn options(&self) -> Result<Value> {
        if !self.dry_run {
            return Ok(json!({}));
        }
        say("Dry Run execution")?;
        Ok(json!({"dryRun": ["All"]}))
    }
}

// === impl Force ===

impl Force {
    /// The seconds that a guest is given, where that is forced.
    fn seconds(&self) -> Result<Option<u32>> {
        match (self.force, self.grace_period) {
            (false, None) => Ok(None),
            (true, Some(seconds)) => Ok(Some(seconds)),
            _ => bail!("Must both use --force=true and set --grace-period."),
        }
    }
}
