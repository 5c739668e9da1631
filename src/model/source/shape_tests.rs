use super::*;
use proptest::prelude::*;

fn arranged(names: &[&str]) -> Result<(Shape, Vec<String>), Misfit> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_string()).collect();
    let (shape, files) = arrange(&names)?;
    let shown = files
        .into_iter()
        .map(|f| {
            [f.id, Some(f.up), f.down]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    Ok((shape, shown))
}

#[test]
fn each_shape_is_known_by_its_names() {
    for (names, shape, files) in [
        (
            &["10_b.sql", "9_a.sql", "README.md", ".x.sql", "z.SQL"][..],
            Shape::Own,
            &["9_a.sql", "10_b.sql", "z.SQL"][..],
        ),
        (
            &["10_b.up.sql", "9_a.down.sql", "9_a.up.sql", "010_b.down.txt"],
            Shape::Numbered,
            &["9_a 9_a.up.sql 9_a.down.sql", "10_b 10_b.up.sql"],
        ),
        (
            &["20240101120000_add orders'.up.sql", "20240101120000_add orders'.down.sql"],
            Shape::Numbered,
            &["20240101120000_add orders' 20240101120000_add orders'.up.sql 20240101120000_add orders'.down.sql"],
        ),
        (
            &["V1.10__c.sql", "V1_9__b.sql", "V1__a.sql", "U1.0__undo a.sql", "V2.0.1__d.sql"],
            Shape::Versioned,
            &[
                "V1__a V1__a.sql U1.0__undo a.sql",
                "V1_9__b V1_9__b.sql",
                "V1.10__c V1.10__c.sql",
                "V2.0.1__d V2.0.1__d.sql",
            ],
        ),
        (
            &["2024-01-10-1_b/up.sql", "2024-01-9-1_a/up.sql", "2024-01-9-1_a/down.sql", ".git/up.sql", "up/metadata.toml"],
            Shape::Directories,
            &[
                "2024-01-9-1_a 2024-01-9-1_a/up.sql 2024-01-9-1_a/down.sql",
                "2024-01-10-1_b 2024-01-10-1_b/up.sql",
            ],
        ),
        // Nearly one of the shapes: the directives in them decide.
        (&["V1_a.sql", "R_a.sql", "__.sql", "a__b.sql", "Vx__a.sql"], Shape::Own, &["R_a.sql", "V1_a.sql", "Vx__a.sql", "__.sql", "a__b.sql"]),
    ] {
        let files: Vec<String> = files.iter().map(|f| (*f).to_string()).collect();
        assert_eq!(arranged(names), Ok((shape, files)), "{names:?}");
    }
}

#[test]
fn what_does_not_fit_is_told_by_name() {
    let long = format!("1_{}.up.sql", "x".repeat(260));
    for (names, problem, detail) in [
        (
            &[][..],
            "there are no migration files in the directory",
            "Of 0 names",
        ),
        (
            &["README.md", ".a.sql", "b.sqlx"],
            "there are no migration files in the directory",
            "Of 3 names",
        ),
        (
            &["a.sql", "1_b.up.sql"],
            "the files of the directory have different shapes",
            "\"a.sql\" is of the shape directives, \"1_b.up.sql\" of NNN_name.up.sql",
        ),
        (
            &["V1__a.sql", "1_b.up.sql"],
            "the files of the directory have different shapes",
            "\"V1__a.sql\"",
        ),
        (
            &["a/up.sql", "1_b.up.sql"],
            "the files of the directory have different shapes",
            "\"a/up.sql\"",
        ),
        (
            &["a/up.sql", "b.sql"],
            "the files of the directory have different shapes",
            "\"a/up.sql\" is of the shape name/up.sql",
        ),
        (
            &["1_b.down.sql"],
            "a way back has no migration that it takes back",
            "\"1_b.down.sql\"",
        ),
        (
            &["a/down.sql"],
            "a way back has no migration that it takes back",
            "\"a/down.sql\"",
        ),
        (
            &["V1__a.sql", "U2__b.sql"],
            "a way back has no migration that it takes back",
            "\"U2__b.sql\"",
        ),
        (
            &["1_a.up.sql", "01_b.up.sql"],
            "two files have the same number",
            "\"1_a.up.sql\" and \"01_b.up.sql\"",
        ),
        (
            &["1_a.up.sql", "1_b.down.sql"],
            "two files have the same number",
            "\"1_a.up.sql\" and \"1_b.down.sql\"",
        ),
        (
            &["V1__a.sql", "V1.0__b.sql"],
            "two files have the same number",
            "\"V1__a.sql\" and \"V1.0__b.sql\"",
        ),
        (
            &["V1__a.sql", "U1__a.sql", "U01__b.sql"],
            "two files have the same number",
            "\"U01__b.sql\" and \"U1__a.sql\"",
        ),
        (
            &["a.sql", "b.sql", "a.sql"],
            "two files have the same name",
            "\"a.sql\"",
        ),
        (
            &["a.up.sql"],
            "the name of a file has no number",
            "\"a.up.sql\"",
        ),
        (
            &["a/other.sql"],
            "a directory below the directory holds other files than up.sql and down.sql",
            "\"a/other.sql\"",
        ),
        (
            &["a\nb.sql"],
            "the name of a file holds a control character",
            "\"a\\nb.sql\"",
        ),
        (
            &["1_a .up.sql"],
            "the name of a file is no id of a migration",
            "\"1_a .up.sql\"",
        ),
        (
            &[long.as_str()],
            "the name of a file is no id of a migration",
            "250 bytes",
        ),
        (
            &["V1__a.sql", "R__views.sql"],
            "repeatable migrations are not loaded from a directory",
            "\"R__views.sql\"",
        ),
        (
            &["B1__all.sql"],
            "baseline migrations are not loaded from a directory",
            "\"B1__all.sql\"",
        ),
    ] {
        let error = arranged(names).unwrap_err();
        assert_eq!(error.problem, problem, "{names:?}");
        assert!(error.detail.contains(detail), "{}", error.detail);
        assert!(
            error.hint.ends_with('.') && error.detail.ends_with('.'),
            "{error:?}"
        );
        assert_eq!(error.unsupported, problem.contains("not loaded"));
    }
}

proptest! {
    #[test]
    fn any_names_are_arranged_or_refused(names in prop::collection::vec("[VUR1-2]{0,2}[_.]{0,2}[a/é ]{0,2}(\\.up|\\.down|/up|)(\\.sql|\\.md|)", 0..5)) {
        let mut shuffled = names.clone();
        shuffled.reverse();
        let (one, other) = (arrange(&names), arrange(&shuffled));
        prop_assert_eq!(one.is_ok(), other.is_ok());
        if let Ok((_, files)) = one {
            prop_assert_eq!(&files, &other.unwrap().1);
            let read: usize = files.iter().map(|f| 1 + usize::from(f.down.is_some())).sum();
            prop_assert_eq!(read, names.iter().filter(|n| is_sql(n)).count());
        }
    }
}
