//! The filter of system calls: an allow-list.
//!
//! Two filters are put in force, and the stricter answer counts. The first one looks at numbers: it
//! answers with `EPERM` what is refused by name, and what is in no table with `ENOSYS`, which
//! programs take as a kernel that is too old, and use something else. That is also the answer to
//! calls whose arguments lie in memory, where no filter can look: `clone3` and `openat2`. The
//! second one answers with `EPERM` what is refused by its arguments.

mod table;
mod tree;

pub use table::{ALLOWED, ARGUMENTS, Family, REFUSED};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// The filters, ready to be put in force.
pub(crate) type Programs = Vec<BpfProgram>;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Problem = seccompiler::BackendError;

/// The families of sockets that are allowed, in ascending order.
const SOCKET_FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// The flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: [i32; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Makes the filters for this processor.
pub(crate) fn compile() -> Result<Programs, Problem> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let errno = |errno: i32| SeccompAction::Errno(errno.cast_unsigned());
    let (missing, refused) = (errno(libc::ENOSYS), errno(libc::EPERM));
    let mut answers = BTreeMap::new();
    for (families, answer) in [(ALLOWED, SeccompAction::Allow), (REFUSED, refused.clone())] {
        let numbers = families.iter().flat_map(|family| family.calls);
        // A number that does not fit is none that the kernel knows.
        let numbers = numbers.filter_map(|&(_, number)| u32::try_from(number).ok());
        answers.extend(numbers.map(|number| (number, u32::from(answer.clone()))));
    }
    let numbers = tree::program(&answers, missing.into());
    let arguments = SeccompFilter::new(arguments()?, SeccompAction::Allow, refused, arch)?;
    Ok(vec![numbers, arguments.try_into()?])
}

fn arguments() -> Result<Rules, Problem> {
    let mut rules = Rules::new();
    let flags: Result<_, Problem> =
        NAMESPACE_FLAGS.iter().map(|&flag| rule(vec![bits(0, flag, flag)?])).collect();
    rules.insert(libc::SYS_clone, flags?);
    rules.insert(libc::SYS_socket, socket_rules()?);
    rules.insert(
        libc::SYS_ioctl,
        // TIOCSTI and TIOCLINUX, which libc does not name on every system.
        vec![rule(vec![equal(1, 0x5412)?])?, rule(vec![equal(1, 0x541c)?])?],
    );
    modes(&mut rules, libc::SYS_fchmod, 1)?;
    modes(&mut rules, libc::SYS_fchmodat, 2)?;
    created(&mut rules, libc::SYS_openat, 2)?;
    modes(&mut rules, libc::SYS_mkdirat, 2)?;
    devices(&mut rules, libc::SYS_mknodat, 2)?;
    #[cfg(target_arch = "x86_64")]
    {
        modes(&mut rules, libc::SYS_chmod, 1)?;
        created(&mut rules, libc::SYS_open, 1)?;
        modes(&mut rules, libc::SYS_creat, 1)?;
        modes(&mut rules, libc::SYS_mkdir, 1)?;
        devices(&mut rules, libc::SYS_mknod, 1)?;
    }
    Ok(rules)
}

/// Refuses every family that lies between, below or above those that are allowed.
fn socket_rules() -> Result<Vec<SeccompRule>, Problem> {
    let mut rules = Vec::new();
    let mut below = None;
    for family in SOCKET_FAMILIES {
        let mut between = vec![compare(0, SeccompCmpOp::Lt, family)?];
        if let Some(below) = below {
            between.push(compare(0, SeccompCmpOp::Gt, below)?);
        }
        rules.push(rule(between)?);
        below = Some(family);
    }
    if let Some(below) = below {
        rules.push(rule(vec![compare(0, SeccompCmpOp::Gt, below)?])?);
    }
    // Of netlink, only what asks for routes and interfaces.
    let other = compare(2, SeccompCmpOp::Gt, libc::NETLINK_ROUTE)?;
    rules.push(rule(vec![equal(0, libc::AF_NETLINK)?, other])?);
    Ok(rules)
}

/// Refuses set-id bits in the mode that is an argument.
fn modes(rules: &mut Rules, call: i64, argument: u8) -> Result<(), Problem> {
    for bit in [0o4000, 0o2000] {
        rules.entry(call).or_default().push(rule(vec![bits(argument, bit, bit)?])?);
    }
    Ok(())
}

/// Refuses set-id bits where a file is created: only then the argument after the flags counts.
fn created(rules: &mut Rules, call: i64, flags: u8) -> Result<(), Problem> {
    // The highest bit of O_TMPFILE is its own.
    for flag in [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY] {
        for bit in [0o4000, 0o2000] {
            let conditions = vec![bits(flags, flag, flag)?, bits(flags + 1, bit, bit)?];
            rules.entry(call).or_default().push(rule(conditions)?);
        }
    }
    Ok(())
}

/// Refuses device nodes, and set-id bits.
fn devices(rules: &mut Rules, call: i64, argument: u8) -> Result<(), Problem> {
    modes(rules, call, argument)?;
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        let (mask, kind) = (libc::S_IFMT.cast_signed(), kind.cast_signed());
        rules.entry(call).or_default().push(rule(vec![bits(argument, mask, kind)?])?);
    }
    Ok(())
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, Problem> {
    SeccompRule::new(conditions)
}

fn equal(argument: u8, value: i32) -> Result<SeccompCondition, Problem> {
    compare(argument, SeccompCmpOp::Eq, value)
}

fn bits(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, Problem> {
    compare(argument, SeccompCmpOp::MaskedEq(mask.cast_unsigned().into()), value)
}

/// Compares the lower half of an argument: the kernel, too, looks at no more of these.
fn compare(argument: u8, operator: SeccompCmpOp, value: i32) -> Result<SeccompCondition, Problem> {
    let value = value.cast_unsigned().into();
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    #[test]
    fn no_call_stands_in_the_tables_twice() {
        let mut seen = BTreeSet::new();
        for (name, _) in ALLOWED.iter().chain(REFUSED).flat_map(|family| family.calls) {
            assert!(seen.insert(name), "{name} stands there twice");
        }
    }

    #[test]
    fn the_filters_compile() {
        assert_eq!(compile().unwrap().len(), 2);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_tables_are_in_the_documentation() {
        let mut table = String::new();
        for (title, families) in [("allowed", ALLOWED), ("refused", REFUSED)] {
            writeln!(table, "| {title} | why | calls |\n|---|---|---|").unwrap();
            for Family { name, reason, calls } in families {
                let calls: Vec<String> =
                    calls.iter().map(|(call, _)| format!("`{call}`")).collect();
                writeln!(table, "| {name} | {reason} | {} |", calls.join(" ")).unwrap();
            }
            table.push('\n');
        }
        writeln!(table, "| refused by arguments | which | why |\n|---|---|---|").unwrap();
        for (call, which, why) in ARGUMENTS {
            writeln!(table, "| {call} | {which} | {why} |").unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sandbox.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("<!-- begin calls -->\n", "<!-- end calls -->");
        let (head, rest) = text.split_once(begin).unwrap();
        let (documented, tail) = rest.split_once(end).unwrap();
        if documented.trim() != table.trim() && std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(path, format!("{head}{begin}{table}{end}{tail}")).unwrap();
            return;
        }
        assert_eq!(documented.trim(), table.trim(), "run with UPDATE_EXPECT=1");
    }
}
