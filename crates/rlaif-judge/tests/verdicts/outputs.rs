use super::{Row, check};
use rlaif_judge::Style;

const TABLE: &[Row] = &[
    // The answer alone.
    ("Output (a)", "first"),
    ("output (b)", "second"),
    ("Output (B).", "second"),
    ("**Output (a)**", "first"),
    ("`Output (b)`", "second"),
    ("\"Output (a)\"", "first"),
    ("(b)", "second"),
    ("a", "first"),
    ("B.", "second"),
    ("Output a", "first"),
    ("Ｏｕｔｐｕｔ （ｂ）", "second"),
    ("Output (b)\n\nHope this helps!", "second"),
    (
        "Output (a). It follows the instruction to the letter, while the other one adds an example nobody asked for.",
        "first",
    ),
    ("Answer: Output (b)", "second"),
    ("Final answer: (b)", "second"),
    ("**Verdict:** Output (a)", "first"),
    ("Winner: B", "second"),
    ("\\boxed{\\text{Output (b)}}", "second"),
    // Verdict first.
    ("Output (b) is better.\n\nOutput (a) ignores the word limit.", "second"),
    ("Output (a) is better than Output (b). It is concise.", "first"),
    ("Output (a) is better because it lists exactly three colours.", "first"),
    ("output (a) is better. output (b) does not answer.", "first"),
    // Verdict last.
    (
        "Output (a) translates only the first line. Output (b) translates the whole poem.\n\nTherefore, Output (b) is better.",
        "second",
    ),
    (
        "## Evaluation\n\n- Output (a): wrong sum.\n- Output (b): right sum.\n\n**Therefore, Output (b) is better.**",
        "second",
    ),
    ("Both outputs answer. Overall, I would choose Output (a).", "first"),
    ("After weighing both, the better output is Output (b).", "second"),
    (
        "Output (a) has more detail, but the task asks for one word. So Output (b) is the better choice.",
        "second",
    ),
    ("Output (a) is fluent. However, Output (b) is clearly superior.", "second"),
    ("In conclusion, (a) is better.", "first"),
    ("Output (b) is better suited to children, but Output (a) is better.", "first"),
    ("While Output (a) is better formatted, Output (b) is better.", "second"),
    (
        "Although Output (a) is better in style, it misses the question. Therefore, Output (b) is better.",
        "second",
    ),
    (
        "In terms of length, Output (a) is better. In terms of accuracy, Output (b) is better.\n\nTherefore, Output (b) is better.",
        "second",
    ),
    ("Output (a) is INCORRECT. Output (b) is CORRECT. Hence Output (b) is better.", "second"),
    (
        "At first glance, Output (a) is better. But its numbers are made up. Therefore, Output (b) is better.",
        "second",
    ),
    ("One might think that Output (a) is better, but it refuses the task. Output (b) is better.", "second"),
    ("If I had to choose, Output (a) is better.", "first"),
    ("There is no doubt that Output (b) is better.", "second"),
    ("Not Output (a) but Output (b) is better.", "second"),
    ("Output (a) doesn't follow the format and Output (b) is better.", "second"),
    (
        "The instruction says to answer \"Output (a) is better\" or \"Output (b) is better\".\n\nOutput (b) is better.",
        "second",
    ),
    (
        "Output (a) is better. Wait, I misread the instruction: it asks for prose. Therefore, Output (b) is better.",
        "second",
    ),
    (
        "Therefore, Output (a) is better. Actually, the code of Output (a) does not compile. Therefore, Output (b) is better.",
        "second",
    ),
    ("Output (b) is better.\n\nTherefore, Output (b) is better.", "second"),
    ("Output (b) is slightly better as it names the author.", "second"),
    ("Therefore, based on the evaluation criteria, Output (a) is better for the given instruction.", "first"),
    ("总的来说，Output (b) is better。", "second"),
    ("Therefore, Output (a) is better.\n\nLet me know if you want me to look at another pair.", "first"),
    // No verdict.
    ("Output (a) is better. Output (b) rambles.\n\nTherefore, Output (b) is better.", "null"),
    ("Therefore, Output (a) is better. Therefore, Output (b) is better.", "null"),
    ("Output (a)\n\nTherefore, Output (b) is better.", "null"),
    ("Output (a) or Output (b)", "null"),
    ("Neither Output (a) nor Output (b) is better.", "null"),
    ("Both outputs are equally good.", "null"),
    ("Output (a) is better at rhyming. Therefore, both outputs are equally good.", "null"),
    ("Output (a) is hardly better.", "null"),
    ("I do not think Output (a) is better.", "null"),
    ("It is not the case that Output (b) is better.", "null"),
    ("NOT Output (a)", "null"),
    ("The better output is NOT Output (a).", "null"),
    ("Output (a) would be better if it gave its sources.", "null"),
    ("Is Output (a) better?", "null"),
    ("Which output is better depends on the reader.", "null"),
    ("Output (b) claims that Output (b) is better.", "null"),
    ("Output (a) is correct.", "null"),
    ("Output (a) is", "null"),
    ("Therefore, Output (", "null"),
    ("I'm sorry, but I can't compare these outputs.", "null"),
    ("I will output a list of issues first.", "null"),
    ("<think>Output (a) is better.", "null"),
    ("", "null"),
    ("   \n", "null"),
];

#[test]
fn llmbar_texts() {
    for style in [Style::LlmbarCot, Style::LlmbarVanilla] {
        check(style, TABLE);
    }
}
