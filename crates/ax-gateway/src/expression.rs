//! Expressions of a manifest, in the Common Expression Language: small, compiled when the manifest
//! is read, and bounded in what they can cost.
//!
//! An expression cannot loop but over what it is given, and not within such a loop; what it is
//! given is bounded. So its work is, too.

use cel::common::ast::{EntryExpr, Expr};
use cel::objects::{Key, Map};
use cel::parser::{Expression as Tree, Parser};
use cel::{Context, Value as Cel};
use serde_json::{Number, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The longest expression, in bytes.
const SOURCE_BYTES_MAX: usize = 2_048;
/// How deep an expression may be nested.
const DEPTH_MAX: u16 = 32;
/// The most that an expression is given: text, in bytes, names of fields included.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// And values, those within lists and objects counted.
const VALUE_COUNT_MAX: usize = 4_096;
/// How long an expression may take.
const TIME_MAX: Duration = Duration::from_secs(1);
/// The functions that there are, beside operators.
const FUNCTIONS: [&str; 13] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];
/// Names that stand for types.
const TYPES: [&str; 9] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

/// An expression over named values.
#[derive(Clone)]
pub(crate) struct Expression {
    source: Arc<str>,
    tree: Arc<Tree>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

impl Expression {
    /// Reads an expression over values of these names.
    pub(crate) fn compile(source: &str, names: &[&str]) -> Result<Self, String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!("is longer than {SOURCE_BYTES_MAX} bytes"));
        }
        let parser = Parser::new().max_recursion_depth(DEPTH_MAX);
        let tree = parser.parse(source).map_err(|errors| {
            let first = errors.errors.first();
            let first = first.map_or_else(|| errors.to_string(), |error| error.msg.clone());
            format!("is not an expression: {}", first.trim())
        })?;
        check(&tree, &mut names.to_vec(), false)?;
        Ok(Self { source: source.into(), tree: Arc::new(tree) })
    }

    /// Whether it is true of these values.
    pub(crate) async fn holds(&self, values: Vec<(&'static str, Value)>) -> Result<bool, String> {
        match self.evaluate(values).await? {
            Value::Bool(holds) => Ok(holds),
            _ => Err(format!("`{}` is neither true nor false", self.source)),
        }
    }

    /// What it comes to with these values.
    pub(crate) async fn evaluate(
        &self,
        values: Vec<(&'static str, Value)>,
    ) -> Result<Value, String> {
        let expression = self.clone();
        let work = tokio::task::spawn_blocking(move || expression.evaluate_here(&values));
        match tokio::time::timeout(TIME_MAX, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(format!("`{}` cannot be evaluated", self.source)),
            Err(_) => Err(format!("`{}` takes too long", self.source)),
        }
    }

    fn evaluate_here(&self, values: &[(&'static str, Value)]) -> Result<Value, String> {
        let mut left = Left { values: VALUE_COUNT_MAX, bytes: TEXT_BYTES_MAX };
        let mut context = Context::default();
        for (name, value) in values {
            let value = to_cel(value, &mut left)
                .ok_or_else(|| format!("there is too much in `{name}` to look at"))?;
            context.add_variable_from_value(*name, value);
        }
        let result = Cel::resolve(&self.tree, &context).map_err(|error| {
            let what: String = error.to_string().chars().take(200).collect();
            format!("`{}` cannot be evaluated: {what}", self.source)
        })?;
        from_cel(&result).ok_or_else(|| format!("`{}` comes to no plain value", self.source))
    }
}

/// How much may still be given to an expression.
struct Left {
    values: usize,
    bytes: usize,
}

impl Left {
    fn take(&mut self, text: &str) -> Option<()> {
        self.bytes = self.bytes.checked_sub(text.len())?;
        Some(())
    }
}

fn to_cel(value: &Value, left: &mut Left) -> Option<Cel> {
    left.values = left.values.checked_sub(1)?;
    Some(match value {
        Value::Null => Cel::Null,
        Value::Bool(bool) => Cel::Bool(*bool),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::UInt(number),
            (None, None) => Cel::Float(number.as_f64()?),
        },
        Value::String(text) => {
            left.take(text)?;
            text.as_str().into()
        }
        Value::Array(items) => {
            let items: Option<Vec<Cel>> = items.iter().map(|item| to_cel(item, left)).collect();
            Cel::List(Arc::new(items?))
        }
        Value::Object(fields) => {
            let mut map = HashMap::new();
            for (name, value) in fields {
                left.take(name)?;
                map.insert(Key::from(name.as_str()), to_cel(value, left)?);
            }
            Cel::Map(Map::from(map))
        }
    })
}

fn from_cel(value: &Cel) -> Option<Value> {
    Some(match value {
        Cel::Null => Value::Null,
        Cel::Bool(bool) => Value::Bool(*bool),
        Cel::Int(number) => Value::from(*number),
        Cel::UInt(number) => Value::from(*number),
        Cel::Float(number) => Value::Number(Number::from_f64(*number)?),
        Cel::String(text) => Value::from(text.as_str()),
        Cel::List(items) => items.iter().map(from_cel).collect::<Option<Vec<_>>>()?.into(),
        Cel::Map(fields) => {
            let fields = fields.map.iter();
            let fields = fields.map(|(name, value)| Some((name.to_string(), from_cel(value)?)));
            Value::Object(fields.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// Finds names that nothing has, and loops within loops. `names` are those in scope.
fn check<'tree>(
    tree: &'tree Tree,
    names: &mut Vec<&'tree str>,
    in_loop: bool,
) -> Result<(), String> {
    match &tree.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(()),
        Expr::Ident(name) => {
            let known = names.contains(&name.as_str()) || TYPES.contains(&name.as_str());
            if known { Ok(()) } else { Err(format!("names `{name}`, which there is not")) }
        }
        Expr::Select(select) => check(&select.operand, names, in_loop),
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            let operator = name.starts_with(['_', '!', '-', '@']);
            if !operator && !FUNCTIONS.contains(&name) {
                return Err(format!("calls `{name}`, which there is not"));
            }
            let parts = call.target.as_deref().into_iter().chain(&call.args);
            parts.into_iter().try_for_each(|part| check(part, names, in_loop))
        }
        Expr::List(list) => list.elements.iter().try_for_each(|item| check(item, names, in_loop)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => {
                check(&entry.key, names, in_loop)?;
                check(&entry.value, names, in_loop)
            }
            EntryExpr::StructField(field) => check(&field.value, names, in_loop),
        }),
        Expr::Struct(of) => Err(format!("makes a `{}`, which there is not", of.type_name)),
        Expr::Comprehension(each) => {
            if in_loop {
                return Err("goes through a list or an object within another".into());
            }
            check(&each.iter_range, names, in_loop)?;
            check(&each.accu_init, names, in_loop)?;
            let outer = names.len();
            names.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
            names.extend(each.iter_var2.as_deref());
            let inner = [&each.loop_cond, &each.loop_step, &each.result];
            let checked = inner.into_iter().try_for_each(|part| check(part, names, true));
            names.truncate(outer);
            checked
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(source: &str, args: Value, expect: Result<bool, &str>) {
        let holds = Expression::compile(source, &["args"]).and_then(|expression| match expression
            .evaluate_here(&[("args", args)])?
        {
            Value::Bool(holds) => Ok(holds),
            other => Err(format!("{other} is no truth")),
        });
        match (&holds, expect) {
            (Ok(holds), Ok(expect)) => assert_eq!(*holds, expect, "{source}"),
            (Err(said), Err(expect)) => assert!(said.contains(expect), "{source}: {said}"),
            _ => panic!("{source}: {holds:?}, not {expect:?}"),
        }
    }

    #[test]
    fn an_expression_is_true_or_false_of_arguments() {
        let order = || {
            json!({"amount": 5, "to": "a@example.org", "big": u64::MAX,
            "part": 0.5, "tags": ["x", "y"], "items": [{"n": 1}, {"n": 20}]})
        };
        for (source, expect) in [
            ("args.amount <= 100", true),
            ("args.amount < 5", false),
            ("args.amount < 5.5 && args.part < 1", true),
            ("args.amount == 5.0", true),
            ("args.big > 100", true),
            ("args.amount + 1 == 6", true),
            ("args.to.endsWith('@example.org')", true),
            ("args.to.matches('^[a-z]+@')", true),
            ("'x' in args.tags", true),
            ("args.items.all(item, item.n < 10)", false),
            ("args.items.filter(item, item.n > 1).exists(item, item.n == 20)", true),
            ("has(args.nothing) && args.nothing > 1", false),
            ("size(args.tags) == 2 && type(args.amount) == int", true),
        ] {
            check(source, order(), Ok(expect));
        }
    }

    #[test]
    fn what_is_wrong_with_an_expression_is_said_when_it_is_read() {
        for (source, expect) in [
            ("", "is not an expression"),
            ("args.amount <=", "is not an expression"),
            ("arguments.amount > 1", "names `arguments`"),
            ("now() > 1", "calls `now`"),
            ("args.a.exists(x, args.b.exists(y, x == y))", "within another"),
            ("Thing{a: 1} == args", "makes a `Thing`"),
            (&format!("args.a == '{}'", "x".repeat(SOURCE_BYTES_MAX)), "longer than"),
            (&"(".repeat(1_000), "is not an expression"),
        ] {
            let said = Expression::compile(source, &["args"]).expect_err(source);
            assert!(said.contains(expect), "{source}: {said}");
        }
    }

    #[test]
    fn whatever_is_written_is_taken_or_refused() {
        let words = r#"args . a ( ) [ ] { } == && || ! - + / % ? : , ' " 'x' b'\xff' r' ''' \u00
            1 1u 0x 9223372036854775808 1e999 .5 in has all map matches size null true ` @ # $ é
            🙂 //"#;
        let words: Vec<&str> = words.split_whitespace().chain([" ", "\n", "\0"]).collect();
        let mut random = 1_u64;
        let mut draw = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(random >> 33).unwrap() % below
        };
        let mut taken = 0;
        for _ in 0..3_000 {
            let length = draw(12);
            let source: String = (0..length).map(|_| words[draw(words.len())]).collect();
            if let Ok(expression) = Expression::compile(&source, &["args"]) {
                taken += 1;
                let args = json!({"a": [1, {"a": null}], "b": "x"});
                let _neither = expression.evaluate_here(&[("args", args)]);
            }
        }
        assert!(taken > 10, "{taken} were expressions");
    }

    #[test]
    fn what_cannot_be_said_is_an_error_and_not_an_answer() {
        check("args.amount > 1", json!({}), Err("cannot be evaluated"));
        check("args.amount > 1", json!({"amount": "5"}), Err("cannot be evaluated"));
        check("args.amount", json!({"amount": 5}), Err("is no truth"));
        check("args.a / args.a == 1", json!({"a": 0}), Err("cannot be evaluated"));
        let many: Vec<usize> = (0..VALUE_COUNT_MAX).collect();
        check("size(args.a) > 1", json!({"a": many}), Err("too much"));
        let long = "x".repeat(TEXT_BYTES_MAX);
        check("size(args.a) > 1", json!({"a": &long}), Err("too much"));
        check("size(args.a) > 1", json!({format!("{long}x"): 1}), Err("too much"));
    }

    #[test]
    fn the_most_that_can_be_given_takes_a_moment() {
        let many: Vec<usize> = (0..VALUE_COUNT_MAX / 2 - 2).collect();
        let started = std::time::Instant::now();
        let args = json!({"a": many.clone(), "b": many});
        check("args.a.map(x, x + 1).all(x, (x - 1) in args.b)", args, Ok(true));
        let text = "a".repeat(TEXT_BYTES_MAX / 2);
        check("args.a.matches('(a*)*b')", json!({"a": text}), Ok(false));
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    }
}
