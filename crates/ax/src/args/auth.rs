//! `ax auth …`.

use ax_server::auth::Role;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct AuthArgs {
    #[command(subcommand)]
    pub(crate) command: AuthCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Make, list, rotate and revoke API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Revoke what `ax session share` has handed out
    #[command(subcommand)]
    Share(ShareCommand),
    /// Show what administrators did and what was refused
    Audit {
        /// Only what was refused
        #[arg(long)]
        denied: bool,
        /// Only the last so many
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key for the namespace, and print it: it is never shown again
    Create {
        /// Name: letters, digits, '.', '-' and '_'
        #[arg(long)]
        name: String,
        /// What its owner may do: viewer, operator, admin
        #[arg(long)]
        role: Role,
        /// For every namespace, and for the server itself
        #[arg(long, conflicts_with = "namespace")]
        all_namespaces: bool,
        /// When it stops to hold, such as 12h or 30d; never if left out
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires: Option<u64>,
    },
    /// List the keys, without their secrets
    List,
    /// Give a key a new secret, and print it
    Rotate {
        /// Key: id or name
        key: String,
        /// How long the old secret still holds, at most 30d
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = time)]
        grace: u64,
    },
    /// Refuse a key from now on
    Revoke {
        /// Key: id or name
        key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ShareCommand {
    /// Refuse every share token there is from now on
    Rotate,
}

/// Reads a time such as `90s`, `15m`, `12h`, `30d` or `2w`, in milliseconds.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a time such as 15m, 12h or 30d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds * 1_000).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        assert_eq!(time("90s"), Ok(90_000));
        assert_eq!(time("30d"), Ok(30 * 86_400_000));
        for wrong in ["", "d", "30", "-1d", "1.5h", "1 d", "1ä", "99999999999999999999w"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
