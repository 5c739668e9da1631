//! Paths of directories, and of files in them.

/// A directory of the server as it is kept: without what makes no difference. `None`: it is not an absolute path, or leads up.
pub fn directory(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    let parts: Vec<&str> = rest
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let plain = !parts.contains(&"..") && !path.contains('\0');
    plain.then(|| format!("/{}", parts.join("/")))
}

/// Whether a name is that of a file in a directory, or in one right below it.
pub fn inside(name: &str) -> bool {
    let mut parts = name.split('/');
    let named = |part: &str| !part.is_empty() && part != "." && part != "..";
    parts.clone().count() <= 2 && parts.all(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_have_one_way_to_be_written() {
        for (path, kept) in [
            ("/a/b", Some("/a/b")),
            ("//a/./b//", Some("/a/b")),
            ("/", Some("/")),
            ("/a b/..c", Some("/a b/..c")),
            ("", None),
            ("a", None),
            ("./a", None),
            ("/a/../b", None),
            ("/..", None),
        ] {
            assert_eq!(directory(path).as_deref(), kept, "{path}");
        }
    }

    #[test]
    fn names_do_not_lead_out() {
        for name in ["a.sql", "a/up.sql", "..a/b", " "] {
            assert!(inside(name), "{name}");
        }
        for name in ["", "/a", "a/", "a/b/c", "../a", "a/..", ".", "./a", "a//b"] {
            assert!(!inside(name), "{name}");
        }
    }
}
