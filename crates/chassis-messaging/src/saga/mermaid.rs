//! The definition as a picture: a Mermaid flowchart, and in it the place of one saga.

use chassis_data::Backend;

use super::definition::{Failure, SagaDefinition};
use super::instance::Instance;
use super::progress::{Kind, Position, SagaState, past_pivot};

/// How a node looks that a saga has come by. Dark text, so that it can be read on a dark page.
const CLASSES: [(Class, &str); 5] = [
    (Class::Done, "fill:#c8e6c9,stroke:#2e7d32,color:#000"),
    (Class::Undone, "fill:#e0e0e0,stroke:#616161,color:#000"),
    (Class::Failed, "fill:#ffccbc,stroke:#bf360c,color:#000"),
    (Class::Here, "fill:#fff59d,stroke:#f57f17,stroke-width:3px,color:#000"),
    (Class::Stuck, "fill:#ef9a9a,stroke:#b71c1c,stroke-width:3px,color:#000"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Done,
    Undone,
    Failed,
    /// What it does now, or the end that it reached.
    Here,
    /// Where it is parked.
    Stuck,
}

impl Class {
    fn as_str(self) -> &'static str {
        match self {
            Class::Done => "done",
            Class::Undone => "undone",
            Class::Failed => "failed",
            Class::Here => "here",
            Class::Stuck => "stuck",
        }
    }
}

impl<D, S, B: Backend> SagaDefinition<D, S, B> {
    /// The saga as a Mermaid flowchart: the way forward with full arrows, the way
    /// back with dotted ones. A step that fails begins with its own undo, which is
    /// left out where the step provably did nothing.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut lines = vec!["flowchart TD".to_owned(), "    start([start])".to_owned()];
        let undoable =
            |below: usize| (0..below).rev().find(|&step| self.plan.get(step) == Some(&Kind::Step));
        let back_to =
            |below: usize| undoable(below).map_or("cancelled".into(), |n| format!("u{n}"));
        let mut before = "start".to_owned();
        for (n, (step, kind)) in self.steps.iter().zip(&self.plan).enumerate() {
            let name = step.name;
            let shape = match kind {
                Kind::Step | Kind::Action => format!("[\"{name}\"]"),
                Kind::Local => format!("[[\"{name}\"]]"),
                Kind::Pivot => format!("{{{{\"{name}: pivot\"}}}}"),
                Kind::Wait { timeout } => format!("[/\"wait for {name}, {timeout:?}\"/]"),
            };
            lines.push(format!("    {before} --> s{n}{shape}"));
            before = format!("s{n}");
            if !past_pivot(&self.plan, n) {
                let label = if matches!(kind, Kind::Wait { .. }) { "too late" } else { "fails" };
                lines.push(format!("    s{n} -. {label} .-> {}", back_to(n + 1)));
            } else {
                lines.push(format!("    s{n} -. gives up .-> parked"));
            }
        }
        lines.push(format!("    {before} --> completed([completed])"));
        for (n, step) in self.steps.iter().enumerate().rev() {
            if self.plan.get(n) == Some(&Kind::Step) {
                lines.push(format!("    u{n}[\"undo {}\"] -.-> {}", step.name, back_to(n)));
            }
        }
        if lines.iter().any(|line| line.ends_with("cancelled")) {
            lines.push("    cancelled([cancelled])".to_owned());
        }
        if lines.iter().any(|line| line.ends_with("parked")) {
            lines.push("    parked([parked])".to_owned());
        }
        lines.push(String::new());
        lines.join("\n")
    }

    /// The flowchart with the nodes coloured by where `instance` stands.
    pub(super) fn mermaid_at(&self, instance: &Instance) -> String {
        let failure: Option<Failure> =
            instance.failure.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let failed = failure.and_then(|f| self.steps.iter().position(|step| step.name == f.step));
        let nodes = coloured(&self.plan, instance.position, failed);
        let mut text = self.mermaid();
        for (class, style) in CLASSES {
            let of = nodes.iter().filter(|(_, is)| *is == class).map(|(node, _)| node.as_str());
            let of = of.collect::<Vec<_>>().join(",");
            if !of.is_empty() {
                let class = class.as_str();
                text += &format!("    classDef {class} {style}\n    class {of} {class}\n");
            }
        }
        text
    }
}

/// The nodes that a saga has come by. `failed` is the step at which it turned back.
fn coloured(plan: &[Kind], at: Position, failed: Option<usize>) -> Vec<(String, Class)> {
    let parked = at.state == SagaState::Parked;
    let here = if parked { Class::Stuck } else { Class::Here };
    let mut nodes = Vec::new();
    if !at.backward {
        nodes.extend((0..at.step.min(plan.len())).map(|n| (format!("s{n}"), Class::Done)));
        nodes.push(match at.state {
            SagaState::Completed => ("completed".to_owned(), here),
            SagaState::Queued => ("start".to_owned(), here),
            _ => (format!("s{}", at.step.min(plan.len().saturating_sub(1))), here),
        });
        return nodes;
    }
    let turned = failed.unwrap_or(at.step);
    for (n, kind) in plan.iter().enumerate().take(turned) {
        // All that can be undone from here up to where it turned is undone.
        let undone = n >= at.step && kind.can_be_undone();
        nodes.push((format!("s{n}"), if undone { Class::Undone } else { Class::Done }));
        if undone {
            nodes.push((format!("u{n}"), Class::Done));
        }
    }
    nodes.extend(failed.map(|n| (format!("s{n}"), Class::Failed)));
    nodes.push(match at.step.checked_sub(1) {
        Some(n) => (format!("u{n}"), here),
        None => ("cancelled".to_owned(), here),
    });
    nodes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chassis_core::Result;
    use chassis_data::Tx;

    use super::*;
    use crate::saga::StepInfo;

    async fn run(_: (), data: u8, _: StepInfo) -> Result<u8> {
        Ok(data)
    }

    async fn commit(_: (), _: &mut Tx, data: u8) -> Result<u8> {
        Ok(data)
    }

    #[test]
    fn the_way_forward_and_the_way_back() {
        let definition = SagaDefinition::<u8, ()>::new("greet", 1)
            .action("ask", run)
            .step("hold", run, run)
            .step("pay", run, run)
            .pivot("confirm", commit)
            .wait_for("heard", Duration::from_secs(60))
            .local("finish", commit);
        let expected = r#"flowchart TD
    start([start])
    start --> s0["ask"]
    s0 -. fails .-> cancelled
    s0 --> s1["hold"]
    s1 -. fails .-> u1
    s1 --> s2["pay"]
    s2 -. fails .-> u2
    s2 --> s3{{"confirm: pivot"}}
    s3 -. fails .-> u2
    s3 --> s4[/"wait for heard, 60s"/]
    s4 -. gives up .-> parked
    s4 --> s5[["finish"]]
    s5 -. gives up .-> parked
    s5 --> completed([completed])
    u2["undo pay"] -.-> u1
    u1["undo hold"] -.-> cancelled
    cancelled([cancelled])
    parked([parked])
"#;
        assert_eq!(definition.mermaid(), expected);
    }

    #[test]
    fn a_saga_has_a_place_in_the_picture() {
        const WAIT: Kind = Kind::Wait { timeout: Duration::from_secs(60) };
        let plan = [Kind::Action, Kind::Step, Kind::Step, Kind::Pivot, WAIT, Kind::Local];
        let forward = |state, step| Position { state, step, ..Position::START };
        let back = |state, step| Position { backward: true, ..forward(state, step) };
        use SagaState::{Cancelled, Compensating, Completed, Parked, Queued, Running};
        for (at, failed, expected) in [
            (forward(Queued, 0), None, "start:here"),
            (forward(Running, 0), None, "s0:here"),
            (forward(Running, 2), None, "s0:done s1:done s2:here"),
            (forward(Parked, 2), None, "s0:done s1:done s2:stuck"),
            (
                forward(Completed, 6),
                None,
                "s0:done s1:done s2:done s3:done s4:done s5:done completed:here",
            ),
            // Turned back at the pivot.
            (back(Compensating, 3), Some(3), "s0:done s1:done s2:done s3:failed u2:here"),
            (back(Parked, 2), Some(3), "s0:done s1:done s2:undone u2:done s3:failed u1:stuck"),
            // Turned back at a step that may have happened, so it is undone too.
            (back(Compensating, 3), Some(2), "s0:done s1:done s2:failed u2:here"),
            (back(Cancelled, 0), Some(2), "s0:done s1:undone u1:done s2:failed cancelled:here"),
            (back(Compensating, 2), None, "s0:done s1:done u1:here"),
        ] {
            let nodes = coloured(&plan, at, failed);
            let nodes: Vec<_> =
                nodes.iter().map(|(node, class)| format!("{node}:{}", class.as_str())).collect();
            assert_eq!(nodes.join(" "), expected, "{at:?} {failed:?}");
        }
    }
}
