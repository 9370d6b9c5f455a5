//! What sessions consumed, summed up from their rows.

use super::Api;
use crate::caller::{Act, Asker, about};
use crate::convert::{text, usage};
use ax_core::session::Usage;
use ax_core::time::Timestamp;
use ax_engine::{Error, ListSessions, SessionView};
use ax_proto::v1;
use ax_proto::v1::UsageGroup as Group;
use std::collections::BTreeMap;

/// The most rows of an answer.
const ROWS_MAX: usize = 10_000;
/// How many sessions are read at a time.
const PAGE: usize = 1_000;
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1_000;

impl Api {
    pub(crate) async fn get_usage(
        self,
        asker: Asker,
        request: v1::GetUsageRequest,
    ) -> Result<v1::GetUsageResponse, Error> {
        let group = Group::try_from(request.group)
            .map_err(|_| Error::invalid(format!("{} is not a group", request.group)))?;
        let wanted = Wanted {
            agent: text(request.agent),
            from: request.created_from_millis,
            before: match request.created_before_millis {
                0 => u64::MAX,
                before => before,
            },
        };
        let mut sums = Sums { group, rows: BTreeMap::new() };
        if !request.session.is_empty() {
            let (namespace, session) =
                asker.session(Act::Read, &request.namespace, &request.session)?;
            let view = self.engine().session(&namespace, &session).await;
            let view = view.map_err(|error| about(&session, error))?;
            sums.add_if(&wanted, &view)?;
            return Ok(sums.answer());
        }
        let namespace = asker.namespace(Act::Read, &request.namespace)?;
        let mut cursor = None;
        loop {
            let agent = wanted.agent.clone();
            let list = ListSessions { cursor, limit: PAGE, states: Vec::new(), agent };
            let page = self.engine().sessions(&namespace, list).await?;
            for view in &page.sessions {
                sums.add_if(&wanted, view)?;
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(sums.answer());
            }
        }
    }
}

/// Which sessions count.
struct Wanted {
    agent: Option<String>,
    from: u64,
    before: u64,
}

/// Sums, by group.
struct Sums {
    group: Group,
    rows: BTreeMap<String, (u64, Usage)>,
}

impl Sums {
    fn add_if(&mut self, wanted: &Wanted, view: &SessionView) -> Result<(), Error> {
        let of_agent = wanted.agent.as_ref().is_none_or(|agent| *agent == view.agent.name);
        if !of_agent || !(wanted.from..wanted.before).contains(&view.created_at.millis) {
            return Ok(());
        }
        let key = match self.group {
            Group::Unspecified | Group::Total => String::new(),
            Group::Agent => view.agent.name.clone(),
            Group::Day => day(view.created_at),
            Group::Session => view.id.to_string(),
        };
        let (sessions, sum) = self.rows.entry(key).or_default();
        *sessions += 1;
        sum.add(&view.usage);
        if self.rows.len() > ROWS_MAX {
            let message = format!("there are more than {ROWS_MAX} rows");
            let hint = "narrow it down: by an agent, by times, or to coarser groups";
            return Err(Error::invalid(message).with_hint(hint));
        }
        Ok(())
    }

    fn answer(self) -> v1::GetUsageResponse {
        let rows = self.rows.into_iter().map(|(group, (sessions, sum))| v1::UsageRow {
            group,
            sessions,
            usage: Some(usage(&sum)),
        });
        v1::GetUsageResponse { rows: rows.collect() }
    }
}

/// The day of a time, such as `2026-01-31`, by the Gregorian calendar and UTC.
fn day(at: Timestamp) -> String {
    // Years begin in March, so that the day that some have more is the last one.
    let days = at.millis / DAY_MILLIS + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expect) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_704_067_199, "2023-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(Timestamp::from_millis(seconds * 1_000)), expect);
        }
    }
}
