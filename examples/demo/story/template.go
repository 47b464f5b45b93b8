package story

import (
	"bytes"
	"embed"
	"fmt"
	"path"
	"strconv"
	"strings"
)

//go:embed tables/*.txt
var tables embed.FS

// A template is one variant of a table's properties, without the closing brace.
type template struct {
	table, variant string
	weight         int
	parts          []part
}

// A part is literal text and the value that follows it.
type part struct {
	text  string
	value value
}

// readTemplates cuts up the files of tables/. They are part of the program, so a mistake in them is
// a bug.
func readTemplates() []*template {
	files, err := tables.ReadDir("tables")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	var all []*template
	for _, f := range files {
		text, err := tables.ReadFile(path.Join("tables", f.Name()))
		if err != nil {
			panic("BUG: " + err.Error())
		}
		table := strings.TrimSuffix(f.Name(), ".txt")
		for variant := range strings.SplitSeq("\n"+string(text), "\n== ") {
			if strings.TrimSpace(variant) == "" {
				continue
			}
			head, body, _ := strings.Cut(variant, "\n")
			t := &template{table: table}
			if n, _ := fmt.Sscan(head, &t.variant, &t.weight); n == 0 {
				panic("BUG: variant without a name in " + f.Name())
			}
			if t.parts, err = cut(strings.ReplaceAll(body, "\n", "")); err != nil {
				panic(fmt.Sprintf("BUG: %s.%s: %v", table, t.variant, err))
			}
			all = append(all, t)
		}
	}
	return all
}

// cut splits the text of a template into parts. Text between ⟪ and ⟫ becomes a JSON string, as
// often escaped as it is nested; values never contain characters that need escaping.
func cut(text string) ([]part, error) {
	const marks = "«⟪⟫"
	var parts []part
	var literal bytes.Buffer
	depth := 0
	text = strings.TrimSpace(text)
	text, ok := strings.CutSuffix(text, "}")
	if !ok {
		return nil, fmt.Errorf("does not end with }")
	}
	for text != "" {
		i := strings.IndexAny(text, marks)
		if i < 0 {
			i = len(text)
		}
		literal.WriteString(escape(text[:i], depth))
		text = text[i:]
		switch {
		case strings.HasPrefix(text, "⟪"):
			literal.WriteString(escape(`"`, depth))
			depth++
			text = text[len("⟪"):]
		case strings.HasPrefix(text, "⟫"):
			depth--
			if depth < 0 {
				return nil, fmt.Errorf("⟫ without ⟪")
			}
			literal.WriteString(escape(`"`, depth))
			text = text[len("⟫"):]
		case text != "":
			name, rest, ok := strings.Cut(text[len("«"):], "»")
			if !ok {
				return nil, fmt.Errorf("« without »")
			}
			v, err := parseValue(name)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part{literal.String(), v})
			literal.Reset()
			text = rest
		}
	}
	if depth != 0 {
		return nil, fmt.Errorf("⟪ without ⟫")
	}
	return append(parts, part{literal.String(), value{kind: nothing}}), nil
}

// escape writes text as it stands inside depth nested JSON strings. Beyond quotes and backslashes
// there is nothing to escape: templates have no control characters.
func escape(text string, depth int) string {
	for range depth {
		quoted := strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(text)
		text = quoted
	}
	return text
}

// number reads the digits at the end of a name such as hex40.
func number(name, prefix string) (int, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil
}
