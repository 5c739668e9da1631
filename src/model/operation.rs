//! What a plain statement is: one stable word each, for `explain`, for the gates, and for whoever reads the audit trail.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that names no operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an operation")]
pub struct UnknownOperation(pub String);

/// What an operation does to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Makes something; nobody who knows only the old shape notices.
    Adds,
    /// Changes something in place.
    Changes,
    /// Takes something away that somebody may know.
    Removes,
}

/// Declares the words once: variant, word, effect, sentence.
macro_rules! operations {
    ($($variant:ident $word:literal $effect:ident $text:literal,)+) => {
        /// What a statement, or a subcommand of it, is. `Display`, `FromStr` and serde use the word, which never changes
        /// once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Operation {
            $(#[doc = $text] #[serde(rename = $word)] $variant,)+
        }

        impl Operation {
            /// All operations, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// One sentence for a person who sees the word for the first time.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// What it does to what is there.
            pub const fn effect(self) -> Effect {
                match self {
                    $(Self::$variant => Effect::$effect,)+
                }
            }
        }
    };
}

operations! {
    CreateTable "create_table" Adds "Makes a table.",
    CreateTableAs "create_table_as" Adds "Makes a table from a query.",
    AddColumn "add_column" Adds "Adds a column.",
    DropColumn "drop_column" Removes "Drops a column.",
    RenameColumn "rename_column" Removes "Gives a column another name.",
    AlterType "alter_type" Changes "Gives a column another type.",
    SetDefault "set_default" Changes "Sets or drops the default of a column.",
    SetNotNull "set_not_null" Changes "Forbids NULL in a column.",
    DropNotNull "drop_not_null" Changes "Allows NULL in a column.",
    AlterIdentity "alter_identity" Changes "Makes, changes or drops an identity or generation expression.",
    AlterColumnOption "alter_column_option" Changes "Sets statistics, storage, compression or options of a column.",
    AddCheck "add_check" Changes "Adds a CHECK constraint.",
    AddForeignKey "add_foreign_key" Changes "Adds a foreign key.",
    AddUnique "add_unique" Changes "Adds a UNIQUE constraint.",
    AddPrimaryKey "add_primary_key" Changes "Adds a primary key.",
    AddExclusion "add_exclusion" Changes "Adds an exclusion constraint.",
    ValidateConstraint "validate_constraint" Changes "Proves a NOT VALID constraint on the rows that exist.",
    AlterConstraint "alter_constraint" Changes "Changes the attributes of a constraint.",
    DropConstraint "drop_constraint" Changes "Drops a constraint.",
    RenameConstraint "rename_constraint" Changes "Gives a constraint another name.",
    AlterTableOption "alter_table_option" Changes "Sets storage parameters or other options of a table.",
    SetTablespace "set_tablespace" Changes "Moves a table or index to another tablespace.",
    SetLogged "set_logged" Changes "Makes a table logged or unlogged.",
    SetAccessMethod "set_access_method" Changes "Gives a table another access method.",
    Cluster "cluster" Changes "Rewrites a table in the order of an index, or without its dead rows.",
    RowSecurity "row_security" Changes "Switches row level security.",
    ReplicaIdentity "replica_identity" Changes "Changes what logical replication sends of old rows.",
    SwitchTrigger "switch_trigger" Changes "Enables or disables a trigger or rule.",
    AttachPartition "attach_partition" Changes "Attaches a partition.",
    DetachPartition "detach_partition" Changes "Detaches a partition.",
    Inherit "inherit" Changes "Changes what a table inherits or is typed by.",
    RenameTable "rename_table" Removes "Gives a table another name.",
    SetSchema "set_schema" Removes "Moves an object to another schema.",
    ChangeOwner "change_owner" Changes "Gives an object another owner.",
    DropTable "drop_table" Removes "Drops a table.",
    Truncate "truncate" Removes "Empties a table.",
    CreateIndex "create_index" Adds "Builds an index.",
    DropIndex "drop_index" Removes "Drops an index.",
    Reindex "reindex" Changes "Builds indexes anew.",
    AlterIndex "alter_index" Changes "Changes an index.",
    CreateView "create_view" Adds "Makes a view.",
    ReplaceView "replace_view" Changes "Makes or replaces a view.",
    AlterView "alter_view" Changes "Changes a view.",
    DropView "drop_view" Removes "Drops a view.",
    CreateMaterializedView "create_materialized_view" Adds "Makes a materialized view.",
    RefreshMaterializedView "refresh_materialized_view" Changes "Computes a materialized view anew.",
    CreateSequence "create_sequence" Adds "Makes a sequence.",
    AlterSequence "alter_sequence" Changes "Changes a sequence.",
    DropSequence "drop_sequence" Removes "Drops a sequence.",
    CreateType "create_type" Adds "Makes a type or domain.",
    ChangeType "change_type" Changes "Changes a type or domain.",
    AddEnumValue "add_enum_value" Adds "Adds a value to an enum.",
    RenameEnumValue "rename_enum_value" Removes "Renames a value of an enum.",
    DropType "drop_type" Removes "Drops a type or domain.",
    CreateFunction "create_function" Changes "Makes or replaces a function or procedure.",
    AlterFunction "alter_function" Changes "Changes a function or procedure.",
    DropFunction "drop_function" Removes "Drops a function or procedure.",
    CreateTrigger "create_trigger" Changes "Makes a trigger.",
    DropTrigger "drop_trigger" Changes "Drops a trigger.",
    CreatePolicy "create_policy" Changes "Makes a row security policy.",
    AlterPolicy "alter_policy" Changes "Changes a row security policy.",
    DropPolicy "drop_policy" Changes "Drops a row security policy.",
    CreateRule "create_rule" Changes "Makes a rule.",
    DropRule "drop_rule" Changes "Drops a rule.",
    CreateStatistics "create_statistics" Adds "Makes extended statistics.",
    Grant "grant" Changes "Grants privileges.",
    Revoke "revoke" Removes "Takes privileges away.",
    Comment "comment" Changes "Sets a comment or security label.",
    CreateSchema "create_schema" Adds "Makes a schema.",
    DropSchema "drop_schema" Removes "Drops a schema.",
    CreateExtension "create_extension" Adds "Installs an extension.",
    DropExtension "drop_extension" Removes "Drops an extension.",
    Replication "replication" Changes "Makes, changes or drops a publication or subscription.",
    Insert "insert" Changes "Inserts rows.",
    Update "update" Changes "Updates rows.",
    Delete "delete" Removes "Deletes rows.",
    Merge "merge" Changes "Merges rows.",
    Copy "copy" Changes "Copies rows from or to a file.",
    Select "select" Changes "Runs a query.",
    Execute "execute" Changes "Runs code: DO or CALL.",
    LockTable "lock_table" Changes "Locks tables.",
    Vacuum "vacuum" Changes "Vacuums or analyzes.",
    Setting "setting" Changes "Changes a setting.",
    CreateOther "create_other" Adds "Makes an object of another kind.",
    AlterOther "alter_other" Changes "Changes an object of another kind.",
    DropOther "drop_other" Removes "Drops an object of another kind.",
    Transaction "transaction" Changes "Controls a transaction.",
    Unknown "unknown" Changes "Is a statement that is not known.",
}

impl Operation {
    /// The operation of a command tag, where the tag says it all.
    pub fn of_tag(tag: &str) -> Operation {
        let (verb, object) = tag.split_once(' ').unwrap_or((tag, ""));
        match (verb, object) {
            ("CREATE", "TABLE") => Self::CreateTable,
            ("CREATE", "VIEW") => Self::CreateView,
            ("CREATE", "SEQUENCE") => Self::CreateSequence,
            ("CREATE", "TYPE" | "DOMAIN") => Self::CreateType,
            ("CREATE", "FUNCTION" | "PROCEDURE" | "AGGREGATE") => Self::CreateFunction,
            ("CREATE", "SCHEMA") => Self::CreateSchema,
            ("CREATE", "EXTENSION") => Self::CreateExtension,
            ("CREATE", "STATISTICS") => Self::CreateStatistics,
            ("ALTER", "SEQUENCE") => Self::AlterSequence,
            ("ALTER", "VIEW" | "MATERIALIZED VIEW") => Self::AlterView,
            ("ALTER", "INDEX") => Self::AlterIndex,
            ("ALTER", "TYPE" | "DOMAIN") => Self::ChangeType,
            ("ALTER", "FUNCTION" | "PROCEDURE" | "ROUTINE" | "AGGREGATE") => Self::AlterFunction,
            ("ALTER", "DEFAULT PRIVILEGES") => Self::Grant,
            ("DROP", "TABLE" | "FOREIGN TABLE") => Self::DropTable,
            ("DROP", "VIEW" | "MATERIALIZED VIEW") => Self::DropView,
            ("DROP", "INDEX") => Self::DropIndex,
            ("DROP", "SEQUENCE") => Self::DropSequence,
            ("DROP", "TYPE" | "DOMAIN") => Self::DropType,
            ("DROP", "FUNCTION" | "PROCEDURE" | "ROUTINE" | "AGGREGATE") => Self::DropFunction,
            ("DROP", "TRIGGER") => Self::DropTrigger,
            ("DROP", "POLICY") => Self::DropPolicy,
            ("DROP", "RULE") => Self::DropRule,
            ("DROP", "SCHEMA") => Self::DropSchema,
            ("DROP", "EXTENSION") => Self::DropExtension,
            (_, "PUBLICATION" | "SUBSCRIPTION") => Self::Replication,
            ("GRANT", _) => Self::Grant,
            ("REVOKE", _) => Self::Revoke,
            ("COMMENT" | "SECURITY", _) => Self::Comment,
            ("DO" | "CALL" | "EXECUTE", _) => Self::Execute,
            ("SET" | "RESET", _) => Self::Setting,
            ("CREATE", _) => Self::CreateOther,
            ("ALTER", _) => Self::AlterOther,
            ("DROP", _) => Self::DropOther,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(s: &str) -> Result<Self, UnknownOperation> {
        Self::ALL
            .iter()
            .copied()
            .find(|operation| operation.as_str() == s)
            .ok_or_else(|| UnknownOperation(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_unique_read_back_and_serde_agrees() {
        for operation in Operation::ALL {
            assert_eq!(operation.to_string().parse(), Ok(*operation));
            assert_eq!(
                serde_json::to_value(operation).unwrap(),
                operation.to_string()
            );
        }
        let words: HashSet<_> = Operation::ALL.iter().map(|o| o.as_str()).collect();
        assert_eq!(words.len(), Operation::ALL.len());
        assert!("alter".parse::<Operation>().is_err());
    }

    #[test]
    fn words_are_the_variants_in_snake_case() {
        for operation in Operation::ALL {
            assert_eq!(
                operation.as_str().replace('_', ""),
                format!("{operation:?}").to_lowercase()
            );
            assert!(operation.text().ends_with('.'));
        }
    }

    #[test]
    fn what_drops_removes() {
        for operation in Operation::ALL {
            let word = operation.as_str();
            if word.starts_with("create_") {
                assert_ne!(operation.effect(), Effect::Removes, "{word}");
            }
        }
        assert_eq!(Operation::DropColumn.effect(), Effect::Removes);
        assert_eq!(Operation::AddColumn.effect(), Effect::Adds);
    }
}
