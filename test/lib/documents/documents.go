// Package documents reads the commands in pages, and in the comments of configuration
// files, that people are to type.
package documents

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Document is a page, or the comments of a file.
type Document struct {
	Path       string   // As it was given.
	Blocks     []string // The commands, in the order of the page.
	Paragraphs []string // The lines of a page outside its blocks; of a file whole paragraphs.
}

// Page reads a page of Markdown, whose fenced blocks without a language are commands.
// It leaves other blocks out.
func Page(path, text string) Document {
	d := Document{Path: path}
	parts := strings.Split("\n"+text, "\n```")
	for i, part := range parts {
		language, block, _ := strings.Cut(part, "\n")
		switch {
		case i%2 == 0:
			d.Paragraphs = append(d.Paragraphs, strings.Split(part, "\n")...)
		case language == "":
			d.Blocks = append(d.Blocks, block)
		}
	}
	return d
}

// Comments reads the comments of a file, whose indented lines are commands.
func Comments(path, text string) Document {
	d := Document{Path: path}
	var block, paragraph []string
	flush := func() {
		if block != nil {
			d.Blocks = append(d.Blocks, strings.Join(block, "\n"))
		}
		d.Paragraphs = append(d.Paragraphs, strings.Join(paragraph, " "))
		block, paragraph = nil, nil
	}
	for line := range strings.Lines(text) {
		words, isComment := strings.CutPrefix(strings.TrimRight(line, "\n"), "#")
		command, isCommand := strings.CutPrefix(words, "   ")
		switch {
		case isComment && isCommand:
			block = append(block, command)
		case isComment && strings.TrimSpace(words) != "":
			paragraph = append(paragraph, strings.TrimSpace(words))
		default:
			flush()
		}
	}
	flush()
	return d
}

// Parse parses a block. The error names the path.
func (d Document) Parse(block string) (*syntax.File, error) {
	return syntax.NewParser().Parse(strings.NewReader(block), d.Path)
}

// Statements returns the statements of a block as they stand in it, without comments
// that follow them.
func (d Document) Statements(block string) (statements []string, err error) {
	file, err := d.Parse(block)
	if err != nil {
		return nil, err
	}
	for _, s := range file.Stmts {
		statements = append(statements, block[s.Pos().Offset():s.End().Offset()])
	}
	return statements, nil
}
