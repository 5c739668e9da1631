// SPDX-License-Identifier: Apache-2.0
//! The order in which the install script is put together: stateful first, replaceable after, privileges last.

use pgrx::extension_sql_file;

extension_sql_file!("../sql/schema/bootstrap.sql", name = "bootstrap", bootstrap);
extension_sql_file!(
    "../sql/schema/migrations.sql",
    name = "migrations",
    requires = ["bootstrap"]
);
extension_sql_file!(
    "../sql/schema/steps.sql",
    name = "steps",
    requires = ["migrations"]
);
extension_sql_file!(
    "../sql/schema/objects.sql",
    name = "objects",
    requires = ["steps"]
);
extension_sql_file!(
    "../sql/schema/drivers.sql",
    name = "drivers",
    requires = ["objects"]
);
extension_sql_file!(
    "../sql/schema/outside.sql",
    name = "outside",
    requires = ["drivers"]
);
extension_sql_file!(
    "../sql/schema/leaf_indexes.sql",
    name = "leaf_indexes",
    requires = ["outside"]
);
extension_sql_file!(
    "../sql/schema/rewrites.sql",
    name = "rewrites",
    requires = ["leaf_indexes"]
);
extension_sql_file!(
    "../sql/schema/mirrors.sql",
    name = "mirrors",
    requires = ["rewrites"]
);
extension_sql_file!(
    "../sql/schema/progress.sql",
    name = "progress",
    requires = ["mirrors"]
);
extension_sql_file!(
    "../sql/schema/backfills.sql",
    name = "backfills",
    requires = ["progress"]
);
extension_sql_file!(
    "../sql/schema/batches.sql",
    name = "batches",
    requires = ["backfills"]
);
extension_sql_file!(
    "../sql/schema/rules.sql",
    name = "rules",
    requires = ["batches"]
);
extension_sql_file!(
    "../sql/schema/hand_batches.sql",
    name = "hand_batches",
    requires = ["rules"]
);
extension_sql_file!(
    "../sql/schema/approvals.sql",
    name = "approvals",
    requires = ["hand_batches"]
);
extension_sql_file!(
    "../sql/schema/dead_letters.sql",
    name = "dead_letters",
    requires = ["approvals"]
);
extension_sql_file!(
    "../sql/schema/artifacts.sql",
    name = "artifacts",
    requires = ["dead_letters"]
);
extension_sql_file!(
    "../sql/schema/audit_events.sql",
    name = "audit_events",
    requires = ["artifacts"]
);
extension_sql_file!(
    "../sql/schema/nodes.sql",
    name = "nodes",
    requires = ["audit_events"]
);
extension_sql_file!(
    "../sql/schema/checkpoints.sql",
    name = "checkpoints",
    requires = ["nodes"]
);
extension_sql_file!(
    "../sql/schema/rates.sql",
    name = "rates",
    requires = ["checkpoints"]
);
extension_sql_file!(
    "../sql/schema/growth.sql",
    name = "growth",
    requires = ["rates"]
);
extension_sql_file!(
    "../sql/schema/preflights.sql",
    name = "preflights",
    requires = ["growth"]
);
extension_sql_file!(
    "../sql/schema/invariants.sql",
    name = "invariants",
    requires = ["preflights"]
);
extension_sql_file!(
    "../sql/schema/signals.sql",
    name = "signals_table",
    requires = ["invariants"]
);
extension_sql_file!(
    "../sql/schema/hooks.sql",
    name = "hooks_tables",
    requires = ["signals_table"]
);
extension_sql_file!(
    "../sql/schema/watches.sql",
    name = "watches",
    requires = ["hooks_tables"]
);
extension_sql_file!(
    "../sql/schema/versions.sql",
    name = "versions",
    requires = ["watches"]
);
extension_sql_file!(
    "../sql/schema/seeds.sql",
    name = "seeds",
    requires = ["versions"]
);
extension_sql_file!(
    "../sql/schema/sources.sql",
    name = "sources",
    requires = ["seeds"]
);
extension_sql_file!(
    "../sql/schema/stops.sql",
    name = "stops",
    requires = ["sources"]
);
extension_sql_file!(
    "../sql/objects/roles.sql",
    name = "roles",
    requires = ["stops"]
);
extension_sql_file!(
    "../sql/objects/fingerprint.sql",
    name = "fingerprint",
    requires = ["roles"]
);
extension_sql_file!(
    "../sql/objects/recreate.sql",
    name = "recreate",
    requires = ["fingerprint"]
);
extension_sql_file!(
    "../sql/objects/materialized.sql",
    name = "materialized",
    requires = ["recreate"]
);
extension_sql_file!(
    "../sql/objects/dependents.sql",
    name = "dependents",
    requires = ["materialized"]
);
extension_sql_file!(
    "../sql/objects/reverse.sql",
    name = "reverse",
    requires = ["dependents"]
);
extension_sql_file!(
    "../sql/objects/guards.sql",
    name = "guards",
    requires = ["reverse"]
);
extension_sql_file!(
    "../sql/objects/views.sql",
    name = "views",
    requires = ["guards"]
);
extension_sql_file!(
    "../sql/objects/signals.sql",
    name = "signals",
    requires = ["views"]
);
extension_sql_file!(
    "../sql/objects/hooks.sql",
    name = "hooks",
    requires = ["signals"]
);
extension_sql_file!(
    "../sql/objects/procedures.sql",
    name = "procedures",
    requires = ["hooks"]
);
extension_sql_file!(
    "../sql/objects/verbs.sql",
    name = "verbs",
    requires = ["procedures"]
);
extension_sql_file!(
    "../sql/objects/metrics.sql",
    name = "metrics",
    requires = ["verbs"]
);
extension_sql_file!(
    "../sql/objects/transform.sql",
    name = "transform",
    requires = ["procedures"]
);
extension_sql_file!(
    "../sql/objects/comments.sql",
    name = "comments",
    requires = [
        "transform",
        "metrics",
        register,
        register_phases,
        register_copy,
        migrate,
        explain,
        execution_order,
        parallel_groups,
        dependencies,
        dependents,
        graph,
        apply,
        pause,
        resume,
        approve,
        revoke_approval,
        skip_soak,
        replay_dead_letters,
        discard_dead_letters,
        purge_dead_letters,
        amend,
        rollback,
        down,
        down_last,
        up,
        rollback_steps,
        fix,
        squash,
        baseline,
        load,
        load_dir,
        load_files,
        verify_dir,
        verify_files,
        verify_checksums,
        export_sql,
        seed_load,
        seed,
        create,
        export,
        import,
        create_checkpoint,
        can_upgrade_to,
        can_downgrade_to,
        current_version,
        add_column,
        add_table,
        drop_column,
        rename_column,
        transform_column,
        acknowledge,
        undo,
        release_old,
        release_version,
        audit_verify,
        audit_head,
        audit_export,
        guard_ddl,
        emergency_stop,
        resume_all,
        tune,
        run,
        hook,
        unhook,
    ]
);
extension_sql_file!(
    "../sql/objects/privileges.sql",
    name = "privileges",
    finalize
);
