// Package commandline makes what a program's grammar, a model of kong, is good for besides parsing: completions for
// shells, and manual pages.
package commandline

import (
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"
)

// Candidate is what a word can be completed to.
type Candidate struct {
	Value       string
	Description string // For people, on one line; may be empty.
}

// Completion is what the last word of a command line can become.
type Completion struct {
	Candidates  []Candidate
	Files       bool // Or the path of a file.
	Directories bool // Or the path of a directory.
}

// Values returns the values of an argument or a flag of a command that are known only at run time, such as names of what
// exists. given are the values of the flags before it on the command line. It returns nil for others. It must be quick:
// somebody waits with a finger on the Tab key.
type Values func(command *kong.Node, value *kong.Value, given map[string]string) []Candidate

// Complete completes the last of words, which are those of a command line after the program's name, without quotes. values
// may be nil.
func Complete(model *kong.Application, words []string, values Values) Completion {
	w := walk{node: model.Node, given: map[string]string{}, values: values}
	if len(words) == 0 {
		words = []string{""}
	}
	last := len(words) - 1
	for _, word := range words[:last] {
		w.step(word)
	}
	c := w.complete(words[last])
	c.Candidates = slices.DeleteFunc(c.Candidates, func(candidate Candidate) bool {
		return !strings.HasPrefix(candidate.Value, words[last]) || strings.ContainsFunc(candidate.Value, unicode.IsControl)
	})
	return c
}

// walk is a position in a command line.
type walk struct {
	node       *kong.Node
	waiting    *kong.Flag // The flag whose value comes next.
	positional int        // The number of arguments so far.
	ended      bool       // After --.
	given      map[string]string
	values     Values
}

// step moves past a word.
func (w *walk) step(word string) {
	switch {
	case w.waiting != nil:
		w.given[w.waiting.Name] = word
		w.waiting = nil
	case w.ended:
		w.positional++
	case word == "--":
		w.ended = true
	case strings.HasPrefix(word, "-") && word != "-":
		name, value, joined := strings.Cut(word, "=")
		flag := w.flag(name)
		switch {
		case flag == nil:
		case joined:
			w.given[flag.Name] = value
		case flag.IsBool():
			w.given[flag.Name] = "true"
		default:
			w.waiting = flag
		}
	default:
		for _, child := range w.node.Children {
			if child.Name == word || slices.Contains(child.Aliases, word) {
				w.node, w.positional = child, 0
				return
			}
		}
		w.positional++
	}
}

// flag returns the flag that a word such as --name, --no-name or -n names, or nil.
func (w *walk) flag(word string) *kong.Flag {
	for _, flag := range flagsOf(w.node) {
		if word == "--"+flag.Name || word == "--no-"+flag.Name && flag.Tag.Negatable != "" || flag.Short != 0 && word == "-"+string(flag.Short) {
			return flag
		}
	}
	return nil
}

// flagsOf returns the flags that a command takes, those of all commands first, without hidden ones.
func flagsOf(node *kong.Node) (all []*kong.Flag) {
	for _, group := range node.AllFlags(true) {
		all = append(all, group...)
	}
	return all
}

// complete completes a word at the position.
func (w *walk) complete(word string) (c Completion) {
	if w.waiting != nil {
		return w.value(w.waiting.Value, w.waiting.PlaceHolder)
	}
	if name, _, joined := strings.Cut(word, "="); joined && !w.ended && strings.HasPrefix(word, "--") {
		if flag := w.flag(name); flag != nil {
			c = w.value(flag.Value, flag.PlaceHolder)
			for i := range c.Candidates {
				c.Candidates[i].Value = name + "=" + c.Candidates[i].Value
			}
		}
		return c
	}
	if strings.HasPrefix(word, "-") && !w.ended {
		return Completion{Candidates: w.flags()}
	}
	for _, child := range w.node.Children {
		if !child.Hidden {
			c.Candidates = append(c.Candidates, Candidate{child.Name, brief(child.Help)})
		}
	}
	arguments := w.node.Positional
	if n := len(arguments); n > 0 && w.positional >= n && arguments[n-1].IsCumulative() {
		return w.value(arguments[n-1], arguments[n-1].Tag.PlaceHolder)
	}
	if w.positional < len(arguments) {
		return w.value(arguments[w.positional], arguments[w.positional].Tag.PlaceHolder)
	}
	return c
}

// flags returns the flags that can still be given.
func (w *walk) flags() (candidates []Candidate) {
	for _, flag := range flagsOf(w.node) {
		if _, given := w.given[flag.Name]; given && !flag.IsCumulative() {
			continue
		}
		candidates = append(candidates, Candidate{"--" + flag.Name, brief(flag.Help)})
		if flag.Tag.Negatable != "" {
			candidates = append(candidates, Candidate{"--no-" + flag.Name, brief(flag.Help)})
		}
	}
	return candidates
}

// value returns what a value can be.
func (w *walk) value(value *kong.Value, placeholder string) (c Completion) {
	for _, name := range value.EnumSlice() {
		if name != "" {
			c.Candidates = append(c.Candidates, Candidate{Value: name})
		}
	}
	if w.values != nil {
		c.Candidates = append(c.Candidates, w.values(w.node, value, w.given)...)
	}
	c.Files, c.Directories = placeholder == "FILE", placeholder == "DIR"
	return c
}

// brief returns the first sentence of a help text, without defaults and the full stop.
func brief(help string) string {
	help, _, _ = strings.Cut(help, " (default: ")
	help, _, _ = strings.Cut(help, ". ")
	return strings.TrimSuffix(help, ".")
}
