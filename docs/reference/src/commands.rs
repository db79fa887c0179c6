//! Every command, as its own help says it.

use std::fs;
use std::io;
use std::path::Path;

use crate::source::literal;
use crate::{FOOTER, missing};

/// The page.
pub(crate) fn page(root: &Path) -> io::Result<String> {
    let constant = |file: &str, name: &str| {
        let text = fs::read_to_string(root.join(file))?;
        let begin = format!("const {name}: &str = ");
        text.split_once(&begin)
            .and_then(|(_, rest)| literal(rest.trim_start()))
            .map(|(value, _)| value.trim_end().to_owned())
            .ok_or_else(|| missing(format!("{file} has no `{name}`")))
    };
    let cli = fs::read_to_string(root.join("crates/chassis/src/cli.rs"))?;
    let options = cli
        .split_once("  --config FILE")
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .map(|(options, _)| format!("  --config FILE{options}"))
        .ok_or_else(|| missing("crates/chassis/src/cli.rs has no help"))?;
    Ok(format!(
        "\
# Commands

## A service

Every service that is built with `service!` or `run` has these options. `--help` also lists its
settings.

```text
{options}
```

| exit code | |
|---|---|
| 0 | it was told to stop, and stopped |
| 1 | it could not start, or a part of it failed; standard error says why in one line |
| 64 | a wrong option or setting; starting it again cannot help |
| 130 | a second signal ended it at once |

## The shop

```text
{}
```

### Its operators' commands

```text
{}
```

## The repository: `cargo xtask`

```text
{}
```
{FOOTER}",
        constant("examples/shop/src/cli.rs", "HELP")?,
        constant("examples/shop/src/operate.rs", "HELP")?,
        constant("xtask/src/main.rs", "HELP")?,
    ))
}
