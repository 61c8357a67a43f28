//! How is a model's chat template run? As Hugging Face runs it: Jinja with white-space trimming,
//! Python's methods on strings and lists, and a few functions that templates expect. A template is
//! a stranger's program, so its steps are counted and end.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};

use super::clock::format_now;
use super::{GenerationPrompt, Message};

/// Steps that a template may take: some thousand times what a long conversation needs.
const MOST_STEPS: u64 = 50_000_000;

/// Texts of special tokens that templates write.
#[derive(Clone, Debug, Default)]
pub struct NamedTokens {
    /// Begins a text.
    pub bos: Option<String>,
    /// Ends a text.
    pub eos: Option<String>,
}

/// A chat template, ready to run.
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: NamedTokens,
}

impl ChatTemplate {
    /// Compiles a template.
    pub fn new(source: &str, tokens: NamedTokens) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment
            .set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(MOST_STEPS));
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| format_now(&format));
        environment.add_template_owned("chat", without_training_marks(source))?;
        Ok(Self { environment, tokens })
    }

    /// Writes a conversation.
    pub fn render(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
    ) -> Result<String, Error> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        self.environment.get_template("chat")?.render(context! {
            messages,
            add_generation_prompt => generation_prompt == GenerationPrompt::Add,
            bos_token => self.tokens.bos.as_deref(),
            eos_token => self.tokens.eos.as_deref(),
            tools => Value::from(()),
            documents => Value::from(()),
        })
    }
}

/// `source` without the blocks that mark what a model is trained on (`{% generation %}`): they are
/// Hugging Face's own and write nothing.
fn without_training_marks(source: &str) -> String {
    let mut rest = source;
    let mut kept = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let block = &rest[start..start + length + 2];
        let name = block.trim_matches(['{', '%', '}', '-', '+', ' ']);
        kept.push_str(&rest[..start]);
        match name {
            "generation" => kept.push_str(&block.replace(name, "if true")),
            "endgeneration" => kept.push_str(&block.replace(name, "endif")),
            _ => kept.push_str(block),
        }
        rest = &rest[start + length + 2..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::chat::Role;

    fn render(source: &str) -> Result<String, String> {
        let tokens = NamedTokens { bos: Some("<s>".to_owned()), eos: None };
        let template = ChatTemplate::new(source, tokens).map_err(|e| e.to_string())?;
        let messages =
            [Message::new(Role::System, " Be <brief>. "), Message::new(Role::User, "Hi")];
        template.render(&messages, GenerationPrompt::Add).map_err(|e| e.to_string())
    }

    #[test]
    fn what_templates_in_the_wild_use_works() {
        let cases = [
            ("{{ bos_token }}{{ messages[0]['content'].strip() }}", "<s>Be <brief>."),
            ("{{ messages[0].content | trim }}", "Be <brief>."),
            (
                "{%- for m in messages %}\n  {%- if m.role == 'user' %}\n{{ m.content }}\n  {%- endif %}\n{%- endfor %}",
                "Hi",
            ),
            (
                "{% for m in messages %}\n    {% if loop.last %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}",
                "user\n",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            ("{% macro say(x) %}[{{ x }}]{% endmacro %}{{ say('a') }}", "[a]"),
            ("{{ messages[1].content.startswith('H') }}{{ 'a,b'.split(',')[-1] }}", "Trueb"),
            ("{{ messages[1:] | length }}{{ messages[::-1][0].role }}", "1user"),
            (
                "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
                "system",
            ),
            ("{{ {'a': [1, 'b']} | tojson }}", r#"{"a": [1, "b"]}"#),
            ("{% if tools is none %}none{% endif %}{% if tools %}tools{% endif %}", "none"),
            (
                "{{ 'x' if messages[0].tool_calls is defined else 'y' }}{{ strftime_now('%%') }}",
                "y%",
            ),
            ("{% if add_generation_prompt %}go{% endif %}{{ undefined_thing }}\n", "go"),
            (
                "{%- generation -%} a {%- endgeneration %}{% generation %} b{% endgeneration %}",
                "a b",
            ),
            ("{{ messages[0]['role'] ~ (messages[1].content is string) }}", "systemTrue"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn a_template_can_refuse_and_its_words_are_passed_on() {
        let refusal = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(refusal.contains("roles must alternate"), "{refusal}");
        assert!(render("{% if %}").is_err());
    }

    #[test]
    fn a_template_without_end_is_stopped() {
        let endless =
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        assert!(render(endless).is_err());
        assert!(render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").is_err());
    }
}
