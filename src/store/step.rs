//! `_transmute.steps`.

use crate::error::{Error, Result};
use crate::model::phase::Phase;
use crate::model::plan;
use crate::model::rule::Rule;
use crate::pg::spi::{self, Row};
use pgrx::JsonB;

#[derive(Debug, Clone)]
pub struct Step {
    pub step: i32,
    pub kind: Kind,
    pub statement: i32,
    pub sql: String,
    pub revert_sql: Option<String>,
    /// The object, qualified and quoted.
    pub target: String,
    /// What the script has SET before it.
    pub settings: Vec<(String, String)>,
    /// The rule that it makes.
    pub rule: Option<Rule>,
}

/// What a step does; the one list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Execute,
    /// A script, or a statement of one, as a person has written it.
    Direct,
    /// Takes back what a step of a finished migration did.
    Back,
    /// A statement whose way back is read from the catalog when it runs.
    Change,
    /// A data statement as it stands.
    Data,
    /// A data statement, a range of its rows a transaction.
    Batch,
    /// A batch that a person has written.
    HandBatch,
    /// A copy in key order, a batch a transaction.
    CopyRows,
    /// A statement that cannot run in a transaction.
    Outside,
    /// Builds an index on every partition, each by a statement that cannot run in a transaction.
    LeafIndexes,
    /// Makes the index, or key, of the partitioned table, which takes those over.
    LeafAttach,
    /// Gives every partition a foreign key and proves it.
    LeafKeys,
    /// Makes that of the partitioned table, which takes those over.
    LeafKeysAttach,
    RewriteExpand,
    /// The same where the shadow is a table of the script's own.
    RewriteInto,
    RewriteCopy,
    RewriteIndex,
    RewriteCheck,
    RewriteViews,
    RewriteSwap,
    /// The statement on a partitioned table, while its partitions are swapped.
    RewriteTree,
    RewriteValidate,
    AliasMake,
    AliasDrop,
    RenameBoth,
    RenameFinish,
    RelaxColumn,
    /// NOT NULL again.
    TightenColumn,
    HideColumn,
    HideTable,
    /// What was hidden is there again.
    Recover,
    VersionBefore,
    VersionAfter,
    VersionDrop,
    /// Takes one view of a version away, which a migration that is taken back has made.
    VersionBack,
    /// Old and new columns are kept equal from here on.
    RuleMake,
    RuleFill,
    RuleCheck,
    RuleEnd,
}

impl Kind {
    pub const ALL: [Kind; 39] = [
        Kind::Execute,
        Kind::Direct,
        Kind::Back,
        Kind::Change,
        Kind::Data,
        Kind::Batch,
        Kind::HandBatch,
        Kind::CopyRows,
        Kind::Outside,
        Kind::LeafIndexes,
        Kind::LeafAttach,
        Kind::LeafKeys,
        Kind::LeafKeysAttach,
        Kind::RewriteExpand,
        Kind::RewriteInto,
        Kind::RewriteCopy,
        Kind::RewriteIndex,
        Kind::RewriteCheck,
        Kind::RewriteViews,
        Kind::RewriteSwap,
        Kind::RewriteTree,
        Kind::RewriteValidate,
        Kind::AliasMake,
        Kind::AliasDrop,
        Kind::RenameBoth,
        Kind::RenameFinish,
        Kind::RelaxColumn,
        Kind::TightenColumn,
        Kind::HideColumn,
        Kind::HideTable,
        Kind::Recover,
        Kind::VersionBefore,
        Kind::VersionAfter,
        Kind::VersionDrop,
        Kind::VersionBack,
        Kind::RuleMake,
        Kind::RuleFill,
        Kind::RuleCheck,
        Kind::RuleEnd,
    ];

    /// One transaction of it may last as long as a table is large. The copy comes in batches; what no transaction may hold has
    /// a process of its own.
    pub fn may_take_long(self) -> bool {
        matches!(
            self,
            Kind::Execute
                | Kind::Direct
                | Kind::Change
                | Kind::Data
                | Kind::Batch
                | Kind::HandBatch
                | Kind::RuleCheck
                | Kind::LeafKeys
                | Kind::RewriteIndex
                | Kind::RewriteCheck
                | Kind::RewriteViews
                | Kind::RewriteValidate
        )
    }

    /// Whether taking it back after the end makes the names of the old application mean what they did.
    pub fn gives_names_back(self) -> bool {
        matches!(
            self,
            Kind::RuleEnd | Kind::HideColumn | Kind::RenameFinish | Kind::AliasMake
        )
    }

    /// Whether it hands statements to a process that runs them outside of a transaction.
    pub fn is_outside(self) -> bool {
        matches!(self, Kind::Outside | Kind::LeafIndexes | Kind::LeafAttach)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Execute => "execute",
            Kind::Direct => "direct",
            Kind::Back => "back",
            Kind::Change => "change",
            Kind::Data => "data",
            Kind::Batch => "batch",
            Kind::HandBatch => "hand_batch",
            Kind::CopyRows => "copy_rows",
            Kind::Outside => "outside",
            Kind::LeafIndexes => "leaf_indexes",
            Kind::LeafAttach => "leaf_attach",
            Kind::LeafKeys => "leaf_keys",
            Kind::LeafKeysAttach => "leaf_keys_attach",
            Kind::RewriteExpand => "rewrite_expand",
            Kind::RewriteInto => "rewrite_into",
            Kind::RewriteCopy => "rewrite_copy",
            Kind::RewriteIndex => "rewrite_index",
            Kind::RewriteCheck => "rewrite_check",
            Kind::RewriteViews => "rewrite_views",
            Kind::RewriteSwap => "rewrite_swap",
            Kind::RewriteTree => "rewrite_tree",
            Kind::RewriteValidate => "rewrite_validate",
            Kind::AliasMake => "alias_make",
            Kind::AliasDrop => "alias_drop",
            Kind::RenameBoth => "rename_both",
            Kind::RenameFinish => "rename_finish",
            Kind::RelaxColumn => "relax_column",
            Kind::TightenColumn => "tighten_column",
            Kind::HideColumn => "hide_column",
            Kind::HideTable => "hide_table",
            Kind::Recover => "recover",
            Kind::VersionBefore => "version_before",
            Kind::VersionAfter => "version_after",
            Kind::VersionDrop => "version_drop",
            Kind::VersionBack => "version_back",
            Kind::RuleMake => "rule_make",
            Kind::RuleFill => "rule_fill",
            Kind::RuleCheck => "rule_check",
            Kind::RuleEnd => "rule_end",
        }
    }
}

const COLUMNS: &str =
    "step, kind, statement, sql, revert_sql, target, coalesce(detail -> 'settings', '[]'), detail -> 'rule'";

fn from_row(row: &Row<'_>) -> Result<Step> {
    let kind: String = row.need(2)?;
    Ok(Step {
        step: row.need(1)?,
        kind: Kind::ALL
            .into_iter()
            .find(|k| k.name() == kind)
            .ok_or_else(|| Error::Bug(format!("unknown step kind {kind}")))?,
        statement: row.need(3)?,
        sql: row.need(4)?,
        revert_sql: row.get(5)?,
        target: row.need(6)?,
        settings: serde_json::from_value(row.need::<JsonB>(7)?.0)?,
        rule: row
            .get::<JsonB>(8)?
            .map(|rule| serde_json::from_value(rule.0))
            .transpose()?,
    })
}

pub fn insert(migration_id: &str, statement: i32, step: &plan::Step) -> Result<()> {
    spi::execute_kept(
        "INSERT INTO _transmute.steps (migration_id, step, phase, kind, statement, target, sql, revert_sql, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &[
            migration_id.into(),
            step.step.into(),
            step.phase.to_string().into(),
            step.kind.as_str().into(),
            statement.into(),
            step.target.as_str().into(),
            step.sql.as_str().into(),
            step.revert_sql.as_deref().into(),
            JsonB(serde_json::to_value(step)?).into(),
        ],
    )?;
    Ok(())
}

/// The whole plan as it stands, and the statement each step comes from.
pub fn plan(migration_id: &str) -> Result<Vec<(i32, plan::Step)>> {
    spi::query(
        "SELECT statement, detail FROM _transmute.steps WHERE migration_id = $1 ORDER BY step",
        &[migration_id.into()],
        |row| {
            Ok((
                row.need(1)?,
                serde_json::from_value(row.need::<JsonB>(2)?.0)?,
            ))
        },
    )
}

/// Replaces what is said of a step's risk. What it runs stays.
pub fn set_risk(migration_id: &str, step: &plan::Step) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET detail = $3 WHERE migration_id = $1 AND step = $2",
        &[
            migration_id.into(),
            step.step.into(),
            JsonB(serde_json::to_value(step)?).into(),
        ],
    )?;
    Ok(())
}

/// Replaces what a step runs.
pub fn set_sql(migration_id: &str, step: &plan::Step) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET sql = $3, detail = $4 WHERE migration_id = $1 AND step = $2",
        &[
            migration_id.into(),
            step.step.into(),
            step.sql.as_str().into(),
            JsonB(serde_json::to_value(step)?).into(),
        ],
    )?;
    Ok(())
}

/// Forgets the plan, for another one.
pub fn delete_all(migration_id: &str) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.steps WHERE migration_id = $1",
        &[migration_id.into()],
    )?;
    Ok(())
}

/// Steps that are not done, by number.
pub fn undone(migration_id: &str) -> Result<Vec<i32>> {
    spi::query(
        "SELECT step FROM _transmute.steps WHERE migration_id = $1 AND status IN ('pending', 'running')",
        &[migration_id.into()],
        |row| row.need(1),
    )
}

/// Steps of a statement, of these kinds, are to be done again.
pub fn set_pending(migration_id: &str, statement: i32, kinds: &[Kind]) -> Result<()> {
    let names: Vec<String> = kinds.iter().map(|k| k.name().to_string()).collect();
    spi::execute(
        "UPDATE _transmute.steps SET status = 'pending', started_at = NULL, finished_at = NULL \
         WHERE migration_id = $1 AND statement = $2 AND kind = ANY ($3)",
        &[migration_id.into(), statement.into(), names.into()],
    )?;
    Ok(())
}

/// The next step of these phases that is not done.
pub fn next(migration_id: &str, phases: &[Phase]) -> Result<Option<Step>> {
    let names: Vec<String> = phases.iter().map(ToString::to_string).collect();
    spi::first(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.steps WHERE migration_id = $1 AND phase = ANY ($2) \
             AND status IN ('pending', 'running') ORDER BY step LIMIT 1"
        ),
        &[migration_id.into(), names.into()],
        from_row,
    )
}

/// Every step, in order.
pub fn all(migration_id: &str) -> Result<Vec<Step>> {
    spi::query(
        &format!("SELECT {COLUMNS} FROM _transmute.steps WHERE migration_id = $1 ORDER BY step"),
        &[migration_id.into()],
        from_row,
    )
}

/// Steps of one kind that are not done, in order.
pub fn pending(migration_id: &str, kind: Kind) -> Result<Vec<Step>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.steps WHERE migration_id = $1 AND kind = $2 \
             AND status IN ('pending', 'running') ORDER BY step"
        ),
        &[migration_id.into(), kind.name().into()],
        from_row,
    )
}

/// The statements that a rewrite runs on its table: what its swap says.
pub fn alterations(migration_id: &str, statement: i32) -> Result<String> {
    sql_of(migration_id, statement, Kind::RewriteSwap)
}

/// What copies the rows into a table of the script's own.
pub fn copy_of(migration_id: &str, statement: i32) -> Result<String> {
    sql_of(migration_id, statement, Kind::RewriteCopy)
}

fn sql_of(migration_id: &str, statement: i32, kind: Kind) -> Result<String> {
    spi::value::<String>(
        "SELECT sql FROM _transmute.steps WHERE migration_id = $1 AND statement = $2 AND kind = $3",
        &[migration_id.into(), statement.into(), kind.name().into()],
    )?
    .ok_or_else(|| Error::Bug(format!("no {} for statement {statement}", kind.name())))
}

/// The statements that lead a rewritten table back.
pub fn way_back(migration_id: &str, statement: i32) -> Result<Option<String>> {
    spi::value::<String>(
        "SELECT revert_sql FROM _transmute.steps WHERE migration_id = $1 AND statement = $2 AND kind = $3",
        &[
            migration_id.into(),
            statement.into(),
            Kind::RewriteSwap.name().into(),
        ],
    )
}

/// Steps of one kind that are begun or done, and not taken back, in order.
pub fn begun(migration_id: &str, kind: Kind) -> Result<Vec<Step>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.steps WHERE migration_id = $1 AND kind = $2 \
             AND status IN ('running', 'done') ORDER BY step"
        ),
        &[migration_id.into(), kind.name().into()],
        from_row,
    )
}

/// Steps with statements outside of transactions that have begun and are not done, in order.
pub fn running_outside(migration_id: &str) -> Result<Vec<Step>> {
    let mut running = spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.steps WHERE migration_id = $1 AND status = 'running' ORDER BY step"
        ),
        &[migration_id.into()],
        from_row,
    )?;
    running.retain(|step| step.kind.is_outside());
    Ok(running)
}

/// The last step that is done or begun and not taken back yet.
pub fn last_to_revert(migration_id: &str) -> Result<Option<Step>> {
    spi::first(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.steps WHERE migration_id = $1 AND status IN ('running', 'done') \
             ORDER BY step DESC LIMIT 1"
        ),
        &[migration_id.into()],
        from_row,
    )
}

/// When the last step that is done was done, microseconds since the Unix epoch; 0: none is.
pub fn last_done_us(migration_id: &str) -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT (extract(epoch FROM max(finished_at)) * 1000000)::bigint FROM _transmute.steps \
         WHERE migration_id = $1 AND status = 'done'",
        &[migration_id.into()],
    )?
    .unwrap_or(0))
}

/// Every step that is done or begun and not taken back yet, the last one first.
pub fn to_revert(migration_id: &str) -> Result<Vec<Step>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.steps WHERE migration_id = $1 AND status IN ('running', 'done') \
             ORDER BY step DESC"
        ),
        &[migration_id.into()],
        from_row,
    )
}

/// Whether any step was taken back.
pub fn any_reverted(migration_id: &str) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.steps WHERE migration_id = $1 AND status = 'reverted')",
        &[migration_id.into()],
    )? == Some(true))
}

pub fn set_running(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET status = 'running', started_at = clock_timestamp(), finished_at = NULL \
         WHERE migration_id = $1 AND step = $2 AND status = 'pending'",
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}

pub fn set_done(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET status = 'done', started_at = coalesce(started_at, clock_timestamp()), \
           finished_at = clock_timestamp() WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}

/// What takes a step back, as it is known now.
pub fn set_revert(migration_id: &str, step: i32, sql: Option<&str>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET revert_sql = $3 WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into(), sql.into()],
    )?;
    Ok(())
}

/// What is left of a step that runs statements, a COMMIT after the other.
pub fn set_rest(migration_id: &str, step: i32, sql: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET sql = $3 WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into(), sql.into()],
    )?;
    Ok(())
}

/// What of a step nothing can take back, for whoever asks for the way back later.
pub fn set_lost(migration_id: &str, step: i32, lost: &[String]) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET lost = $3 WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into(), lost.to_vec().into()],
    )?;
    Ok(())
}

/// What the catalogs say of the tables of a step before it runs.
pub fn set_facts(migration_id: &str, step: i32, facts: serde_json::Value) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET facts = $3 WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into(), JsonB(facts).into()],
    )?;
    Ok(())
}

/// Steps that are done and whose way back has not been derived, with what the catalogs said before them.
pub fn with_facts(migration_id: &str) -> Result<Vec<(Step, serde_json::Value)>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS}, facts FROM _transmute.steps WHERE migration_id = $1 AND facts IS NOT NULL AND status = 'done' \
             ORDER BY step"
        ),
        &[migration_id.into()],
        |row| Ok((from_row(row)?, row.need::<JsonB>(9)?.0)),
    )
}

/// The way back of a step, derived from its facts, which nobody needs any more.
pub fn settle_facts(migration_id: &str, step: i32, sql: &str, lost: &[String]) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET revert_sql = $3, lost = $4, facts = NULL WHERE migration_id = $1 AND step = $2",
        &[
            migration_id.into(),
            step.into(),
            sql.into(),
            lost.to_vec().into(),
        ],
    )?;
    Ok(())
}

/// A step that has run, and what is needed to take it back.
pub struct Ran {
    pub step: Step,
    pub phase: String,
    pub lost: Vec<String>,
}

/// Every step of a migration, the last one first.
pub fn ran(migration_id: &str) -> Result<Vec<Ran>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS}, phase, lost FROM _transmute.steps WHERE migration_id = $1 AND status = 'done' \
             ORDER BY step DESC"
        ),
        &[migration_id.into()],
        |row| {
            Ok(Ran {
                step: from_row(row)?,
                phase: row.need(9)?,
                lost: row.need(10)?,
            })
        },
    )
}

/// Whether its steps were derived from those of another migration, and not planned.
pub fn is_derived(migration_id: &str) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.steps WHERE migration_id = $1 AND kind = 'back') \
             AND NOT EXISTS (SELECT FROM _transmute.steps WHERE migration_id = $1 AND kind IN ('rewrite_swap', 'rule_make')) \
           OR EXISTS (SELECT FROM _transmute.migrations WHERE id = $1 AND down_of IS NOT NULL AND plan_checksum <> '' \
             AND NOT EXISTS (SELECT FROM _transmute.steps WHERE migration_id = $1))",
        &[migration_id.into()],
    )? == Some(true))
}

/// Marks every step that is left as done, by a person's word.
pub fn set_all(migration_id: &str, status: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET status = $2, finished_at = clock_timestamp() \
         WHERE migration_id = $1 AND status NOT IN ('done', 'reverted') OR migration_id = $1 AND $2 = 'reverted'",
        &[migration_id.into(), status.into()],
    )?;
    Ok(())
}

pub fn set_reverted(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET status = 'reverted', finished_at = clock_timestamp() \
         WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}

/// Makes the plan ready to run again, before an apply.
pub fn reset(migration_id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.steps SET status = 'pending', started_at = NULL, finished_at = NULL, revert_sql = detail ->> 'revert_sql', \
           lost = '{}', facts = NULL WHERE migration_id = $1",
        &[migration_id.into()],
    )?;
    Ok(())
}
