//! `meta.versioned_views`: a schema for a release, with a view of each table that the script changes.

use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::catalog::column::Column;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::lock::{Lock, Mode};
use crate::model::phase::Phase;
use crate::pg::parser::{Kind, Named};
use crate::pg::{spi, Oid};
use crate::rewrite::version as views;
use crate::store::step::Kind as StepKind;
use crate::store::version;

/// Bytes of a name.
const MAX_NAME: usize = 63;

impl Planner<'_> {
    /// Tables of the catalog that the script changes, and whether it drops them.
    pub(super) fn find_versioned(&mut self) -> Result<()> {
        let meta = self.meta;
        let names = [&meta.versioned_views, &meta.versioned_views_before];
        for (key, name) in ["versioned_views", "versioned_views_before"]
            .into_iter()
            .zip(names)
        {
            if let Some(name) = name {
                require_name(key, name)?;
                views::require_owner(name, self.caller.role)?;
            }
        }
        if meta.versioned_views.is_some() && meta.versioned_views == meta.versioned_views_before {
            return Err(invalid(
                "versioned_views_before",
                "is the same schema as meta.versioned_views",
            ));
        }
        for name in &meta.drop_versions {
            if !version::exists(name)? {
                return Err(invalid(
                    "drop_versions",
                    &format!("\"{name}\" is no version"),
                ));
            }
            views::require_owner(name, self.caller.role)?;
        }
        if names.iter().all(|n| n.is_none()) {
            return Ok(());
        }
        for statement in self.statements.clone().iter() {
            let (tables, dropped): (Vec<Named>, bool) = match &statement.kind {
                Kind::AlterTable(alter) => (
                    vec![Named {
                        schema: alter.schema.clone(),
                        name: alter.name.clone(),
                    }],
                    false,
                ),
                Kind::RenameTable(rename) => (vec![rename.table.clone()], false),
                Kind::RenameColumn(rename) => (vec![rename.table.clone()], false),
                Kind::DropTable(drop) => (drop.tables.clone(), true),
                _ => continue,
            };
            for named in tables {
                if let Target::Existing(oid) = self.lookup(named.schema.as_deref(), &named.name)? {
                    let table = relation::get(oid)?;
                    match self.versioned.iter_mut().find(|(t, _)| t.oid == oid) {
                        Some((_, gone)) => *gone |= dropped,
                        None if matches!(table.kind, 'r' | 'p') => {
                            self.versioned.push((table, dropped))
                        }
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the script makes versions of its own.
    pub(super) fn makes_versions(&self) -> bool {
        self.meta.versioned_views.is_some() || self.meta.versioned_views_before.is_some()
    }

    /// Whether views of versions hang on a table, or will.
    pub(super) fn has_versions(&self, table: &Relation) -> Result<bool> {
        Ok(self.makes_versions() || !version::on(table.oid)?.is_empty())
    }

    /// Whether any version that stays shows the table as it is no more, when it has these columns. Refuses to convert it once
    /// more under one that converts it already, unless that leads back to what the version knows.
    pub(super) fn versions_behind(&self, table: &Relation, columns: &[Column]) -> Result<bool> {
        let mut behind = version::on(table.oid)?;
        behind.retain(|v| !self.going.contains(&v.id) && !views::is_plain(v, columns));
        match behind.iter().find(|v| v.converts) {
            Some(view) => Err(views::two_behind(view)),
            None => Ok(!behind.is_empty()),
        }
    }

    /// Steps that make the versions, when everything else is planned.
    pub(super) fn plan_versions(&mut self) -> Result<()> {
        let mut tables = std::mem::take(&mut self.versioned);
        if tables.is_empty()
            && (self.meta.versioned_views.is_some() || self.meta.versioned_views_before.is_some())
        {
            return Err(Error::Unsupported {
                problem: "the script changes no table that a version could show".into(),
                detail:
                    "meta.versioned_views is about tables that are altered, renamed or dropped."
                        .into(),
                hint: "Leave meta.versioned_views out.".into(),
            });
        }
        for bundle in self.bundles.iter().filter(|b| b.added_for.is_some()) {
            if !tables.is_empty() && !tables.iter().any(|(t, _)| t.oid == bundle.table.oid) {
                tables.push((bundle.table.clone(), false));
            }
        }
        if let Some(name) = self.meta.versioned_views_before.clone() {
            let first = self.steps.len();
            for (table, _) in &tables {
                self.push_version(StepKind::VersionBefore, &name, table, &table.name.clone())?;
            }
            // Before anything of the script: later ones see them.
            let made = self.steps.split_off(first);
            self.steps.splice(0..0, made);
        }
        for (table, dropped) in &tables {
            self.lock_versions(table, true, !dropped)?;
        }
        // Those of earlier releases are on tables of which this one makes no version.
        for oid in self.rewritten.clone() {
            let oid = Oid::from(oid);
            if !tables.iter().any(|(t, _)| t.oid == oid) {
                self.lock_versions(&relation::get(oid)?, false, false)?;
            }
        }
        if let Some(name) = self.meta.versioned_views.clone() {
            for (table, dropped) in &tables {
                if !dropped {
                    let now = self.name_now(table);
                    self.push_version(StepKind::VersionAfter, &name, table, &now)?;
                }
            }
        }
        for name in self.meta.drop_versions.clone() {
            let sql = format!("drop the views of version {}", quote_ident(&name));
            let locks = version::of(&name)?.into_iter().map(|view| Lock {
                mode: Mode::AccessExclusive,
                relation: QualifiedName::new(&name, view.view_name).to_string(),
            });
            let draft = Draft::new(StepKind::VersionDrop, Phase::Contract, &name, sql)
                .only_also(locks.collect());
            self.push(1, &crate::model::risk::Facts::default(), draft);
        }
        Ok(())
    }

    /// A swap makes the views of all versions anew, those that the script makes included.
    fn lock_versions(&mut self, table: &Relation, before: bool, after: bool) -> Result<()> {
        let now = self.name_now(table);
        let mut views: Vec<QualifiedName> = version::on(table.oid)?
            .into_iter()
            .map(|view| QualifiedName::new(view.version, view.view_name))
            .collect();
        let before = self.meta.versioned_views_before.as_ref().filter(|_| before);
        views.extend(before.map(|version| QualifiedName::new(version, &table.name.name)));
        let after = self.meta.versioned_views.as_ref().filter(|_| after);
        views.extend(after.map(|version| QualifiedName::new(version, &now.name)));
        let swaps = [StepKind::RewriteSwap.name(), StepKind::RewriteTree.name()];
        for step in self.steps.iter_mut().map(|p| &mut p.step) {
            if swaps.contains(&step.kind.as_str()) && step.target == now.to_string() {
                step.locks.extend(views.iter().map(|view| Lock {
                    mode: Mode::AccessExclusive,
                    relation: view.to_string(),
                }));
            }
        }
        Ok(())
    }

    fn push_version(
        &mut self,
        kind: StepKind,
        version: &str,
        table: &Relation,
        name: &crate::model::ident::QualifiedName,
    ) -> Result<()> {
        let taken = version::of(version)?
            .iter()
            .any(|v| v.view_name == name.name);
        if taken {
            return Err(Error::Unsupported {
                problem: "the version has a view of that name".into(),
                detail: format!(
                    "{}.{} was made by another migration.",
                    quote_ident(version),
                    quote_ident(&name.name)
                ),
                hint: "Choose the name of another release for meta.versioned_views.".into(),
            });
        }
        let sql = format!(
            "make {}.{}, a view of the table as {} it is known",
            quote_ident(version),
            quote_ident(&name.name),
            match kind {
                StepKind::VersionBefore => "before",
                _ => "after",
            }
        );
        let draft = Draft::new(kind, Phase::Expand, name.to_string(), sql).lock("ACCESS SHARE");
        self.push(1, &table.facts(), draft);
        Ok(())
    }
}

fn invalid(key: &str, what: &str) -> Error {
    Error::InvalidArgument {
        problem: "the metadata is not valid".into(),
        detail: format!("meta.{key}: {what}."),
        hint: "Give the name of a schema for this release, such as \"v2\".".into(),
    }
}

fn require_name(key: &str, name: &str) -> Result<()> {
    if name.len() > MAX_NAME {
        return Err(invalid(key, "is longer than 63 bytes"));
    }
    if name.starts_with("pg_") || name.starts_with("_transmute") || name == "transmute" {
        return Err(invalid(key, "is a name that is reserved"));
    }
    if name.chars().any(char::is_control) {
        return Err(invalid(key, "holds a control character"));
    }
    let there: Option<bool> = spi::value(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::name)",
        &[name.into()],
    )?;
    if there == Some(true) && !version::exists(name)? {
        return Err(invalid(
            key,
            &format!("there is a schema \"{name}\" that is no version"),
        ));
    }
    Ok(())
}
