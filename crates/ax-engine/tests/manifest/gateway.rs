//! The `gateway` section.

use super::check;
use expect_test::expect;

#[test]
fn what_is_wrong_with_a_gateway_is_named_by_its_field() {
    let head = "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {name: a}\nspec:\n  \
        sandbox: process\n";
    let process = "  harness: {type: process, command: [a]}\n";
    check(
        &format!("{head}{process}  gateway:\n    models:\n      - provider: mistral\n"),
        expect![[r#"
            9:19 spec.gateway.models[0].provider
               unknown variant `mistral`, expected one of `anthropic`, `openai`, `gemini`
        "#]],
    );
    check(
        &format!("{head}{process}  gateway: {{models: [{{provider: openai, baseURL: x}}]}}\n"),
        expect![[r#"
            7:50 spec.gateway.models[0].baseURL
               unknown field `baseURL`, expected one of `provider`, `name`, `baseUrl`,
               `apiKeyEnv`, `fallback`, `tries`, `ignore`, `prices`
               hint: did you mean `baseUrl`?
        "#]],
    );
    check(
        &format!("{head}{process}  gateway: [openai]\n"),
        expect![[r#"
        7:12 spec.gateway
           must be a map, not a list
    "#]],
    );
    check(
        &format!(
            "{head}  harness: {{type: builtin, model: {{provider: gemini, name: m}}}}\n  gateway: \
             {{models: [{{provider: gemini}}]}}\n"
        ),
        expect![[r#"
            7:21 spec.gateway.models
               the built-in harness asks its model itself
               hint: leave `models` out, or use `type: process`
        "#]],
    );
}
