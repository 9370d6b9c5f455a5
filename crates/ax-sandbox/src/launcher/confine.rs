//! What a process gives up before it runs somebody else's program: ids, capabilities, limits,
//! Landlock, system calls. In this order: each step needs what the next one takes away.

use crate::cgroup::Groups;
use crate::order::Order;
use crate::plan::Resources;
use crate::seccomp::Programs;
use crate::wall::{Refusal, Standing, State, Wall};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use std::fs;
use std::path::Path;

/// What the second wall is made for. Older kernels know less of it, and that is reported.
const LANDLOCK: ABI = ABI::V6;

/// Confines pid 1. It keeps the right to signal the command, which has another user id; whom it
/// could signal is in its own process namespace.
pub(super) fn init(order: &Order, user: Option<u32>) -> Result<(), Refusal> {
    let kept = if user.is_some() { CapabilitySet::KILL } else { CapabilitySet::empty() };
    privileges(order, user, kept)
}

/// Confines the process that becomes the command. `limited` says whether limits of the whole are
/// in force.
pub(super) fn command(order: &Order, user: Option<u32>, limited: bool) -> Result<(), Refusal> {
    if order.has(Wall::ProcessLimits) {
        limits(&order.plan.resources, limited)
            .map_err(|error| Refusal::at(Wall::ProcessLimits, "setrlimit", &error))?;
    }
    if order.has(Wall::Capabilities) {
        return privileges(order, user, CapabilitySet::empty());
    }
    let all = capabilities(None).map(|sets| sets.permitted);
    let all = all.map_err(|error| Refusal::at(Wall::Capabilities, "capget", &error))?;
    privileges(order, user, all)?;
    // A control wants the command to have them: only ambient ones outlive its execution.
    for capability in all.iter() {
        let _not_this_one = configure_capability_in_ambient_set(capability, true);
    }
    Ok(())
}

/// Limits each process. Those of the whole stand in for the ones that are missing.
fn limits(resources: &Resources, limited: bool) -> rustix::io::Result<()> {
    let set = |resource, amount| {
        setrlimit(resource, Rlimit { current: Some(amount), maximum: Some(amount) })
    };
    set(Resource::Core, 0)?;
    set(Resource::Nofile, resources.open_files)?;
    set(Resource::Fsize, resources.file_size)?;
    // Pid 1 is counted too where it has the same user.
    set(Resource::Nproc, u64::from(resources.pids) + 1)?;
    if !limited {
        set(Resource::Data, resources.memory)?;
    }
    Ok(())
}

fn privileges(order: &Order, user: Option<u32>, kept: CapabilitySet) -> Result<(), Refusal> {
    let failed = |what: &'static str| {
        move |error: rustix::io::Errno| Refusal::at(Wall::Capabilities, what, &error)
    };
    if order.has(Wall::Capabilities) {
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // There are no more.
                Err(rustix::io::Errno::INVAL) if number > 0 => break,
                Err(error) => return Err(failed("the bounding set")(error)),
            }
        }
    }
    set_keep_capabilities(!kept.is_empty()).map_err(failed("keeping"))?;
    if let Some(user) = user {
        become_user(user).map_err(|error| Refusal::at(Wall::OwnId, "changing ids", &error))?;
    }
    let inheritable = if order.has(Wall::Capabilities) { CapabilitySet::empty() } else { kept };
    clear_ambient_capability_set().map_err(failed("the ambient set"))?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
    set_capabilities(None, sets).map_err(failed("capset"))?;
    if order.has(Wall::NoNewPrivileges) {
        set_no_new_privs(true)
            .map_err(|error| Refusal::at(Wall::NoNewPrivileges, "prctl", &error))?;
    }
    Ok(())
}

fn become_user(user: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Puts the filters in force.
pub(super) fn filter(order: &Order, filters: &Programs) -> Result<(), Refusal> {
    if !order.has(Wall::Seccomp) {
        return Ok(());
    }
    // The first one has to let the second one be installed; it allows `prctl` and `seccomp`.
    filters.iter().try_for_each(|filter| {
        seccompiler::apply_filter(filter)
            .map_err(|error| Refusal::at(Wall::Seccomp, "the filter is not taken", &error))
    })
}

/// Builds the second wall.
pub(super) fn landlock(order: &Order) -> Result<State, Refusal> {
    if !order.has(Wall::Landlock) {
        return Ok(State::Missing { why: "left out".into() });
    }
    match restrict(order) {
        Ok(RulesetStatus::FullyEnforced) => Ok(State::Stands),
        Ok(RulesetStatus::PartiallyEnforced) => Ok(State::Missing {
            why: "the kernel knows only a part of it; that part stands".into(),
        }),
        Ok(RulesetStatus::NotEnforced) => {
            Ok(State::Missing { why: "the kernel has no Landlock, or it is off".into() })
        }
        Err(error) => Err(Refusal::at(Wall::Landlock, "the rules are not taken", &error)),
    }
}

fn restrict(order: &Order) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    let all = AccessFs::from_all(LANDLOCK);
    let devices = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev;
    let mut places: Vec<(&Path, BitFlags<AccessFs>)> = vec![
        (Path::new("/"), AccessFs::ReadDir.into()),
        (Path::new("/proc"), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir),
        (Path::new("/dev"), devices),
        (Path::new("/dev/shm"), all),
        (Path::new("/tmp"), all),
    ];
    let programs = ["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
    places.extend(programs.iter().map(|path| (Path::new(*path), read)));
    if order.image.is_some() {
        // All that is in it is the image's, or mounted for the command.
        places.push((Path::new("/"), read));
    }
    let mounts = order.binds.iter();
    places.extend(mounts.map(|bind| (&*bind.target, if bind.writable { all } else { read })));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        // Not the abstract sockets: the network namespace has its own, and a process that is to be
        // checkpointed must reach its helper.
        .scope(Scope::Signal)?
        .create()?
        .no_new_privs(order.has(Wall::NoNewPrivileges));
    for (path, access) in places {
        let Ok(directory) = fs::metadata(path).map(|found| found.is_dir()) else { continue };
        let access = if directory { access } else { access & AccessFs::from_file(LANDLOCK) };
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Puts together which walls stand; `known` are those that somebody has looked at.
pub(super) fn report(order: &Order, known: Vec<Standing>, groups: &Groups) -> Vec<Standing> {
    let missing = |why: &str| State::Missing { why: why.into() };
    let state = |wall: Wall| {
        if !order.has(wall) {
            return missing("left out");
        }
        if let Some(known) = known.iter().find(|known| known.wall == wall) {
            return known.state.clone();
        }
        match wall {
            Wall::Cgroup if !groups.missing.is_empty() => missing(&groups.missing.join("; ")),
            Wall::UserNamespace if order.ids.is_some() => State::NotNeeded,
            Wall::OwnId | Wall::MappedOwners if order.ids.is_none() => State::NotNeeded,
            _ => State::Stands,
        }
    };
    Wall::ALL.map(|wall| Standing { wall, state: state(wall) }).to_vec()
}
