package main

import "strings"

// maxTags bounds how many tags a pattern may make: each tag is a chunk of the host's, and the
// tables come from outside.
const maxTags = 500

// classPlace: the place in a tag_pattern of an event's OCSF class.
const classPlace = "{class}"

// byClass reports whether a tag_pattern names the class of an event and not its table.
func byClass(pattern string) bool { return strings.Contains(pattern, classPlace) }

// tags makes a tag of a table, by tag_pattern.
type tags struct {
	before, after string
	known         map[string]string // table -> tag
}

// newTags returns the tags of a pattern; those of an empty one are empty, which is the section's
// own tag.
func newTags(pattern string) *tags {
	if pattern == "" {
		return &tags{}
	}
	before, after, _ := strings.Cut(strings.Replace(pattern, classPlace, "*", 1), "*")
	return &tags{before: before, after: after, known: make(map[string]string)}
}

// checkTagPattern returns the mistake in a pattern, or "".
func checkTagPattern(pattern string) string {
	switch {
	case pattern == "":
		return ""
	case strings.Count(pattern, "*")+strings.Count(pattern, classPlace) != 1:
		return "needs one *, which becomes the table, such as defender.*"
	case strings.ContainsFunc(pattern, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "has a character that a tag should not have; use letters, digits, dots, - and _, such as defender.*"
	}
	return ""
}

// of returns the tag of table, which has only characters that a tag may have: see transform.Emit.
// It allocates only the first time.
func (t *tags) of(table string) string {
	if t.known == nil {
		return ""
	}
	tag, ok := t.known[table]
	if !ok {
		if len(t.known) >= maxTags {
			return t.before + "other" + t.after
		}
		tag = t.before + table + t.after
		t.known[strings.Clone(table)] = tag
	}
	return tag
}
