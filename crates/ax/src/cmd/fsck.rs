//! `ax fsck`: is what is stored what was written?

use crate::args::FsckArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::Context;

pub(crate) async fn fsck(_cx: &Context, _args: &FsckArgs) -> Result<Exit, Failure> {
    Ok(Exit::Done)
}
