//! `ax image …`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Take an image in from a directory in the OCI layout, or a tar archive of one or of `docker
    /// save`
    Import {
        /// Directory or archive
        path: PathBuf,
        /// Name of the image here; what it calls itself, or the file is called, if left out
        #[arg(long)]
        name: Option<String>,
        /// Which image, if there are several
        #[arg(long)]
        tag: Option<String>,
    },
    /// Fetch an image from a registry
    Pull {
        /// Registry, repository, and tag or digest, such as docker.io/library/debian:12
        reference: String,
        /// Name of the image here; the reference if left out
        #[arg(long)]
        name: Option<String>,
        /// User at the registry
        #[arg(long, requires = "password_env")]
        username: Option<String>,
        /// Environment variable that has the user's password or token
        #[arg(long, value_name = "VARIABLE", requires = "username")]
        password_env: Option<String>,
    },
    /// List images
    List,
    /// Show an image
    Show {
        /// Name, digest, or the first digits of that
        image: String,
    },
    /// Delete an image; what sandboxes use of it stays until they end
    Delete {
        /// Name, digest, or the first digits of that
        image: String,
    },
}
