package validate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// maxDepth bounds how deep arrays and objects nest; the contract needs three.
const maxDepth = 32

// parseJSON reads exactly one JSON value. Beyond what encoding/json refuses, it
// refuses an object that has a name twice (two readers could take different
// ones), NUL in strings, and anything behind the value. An error names the field
// at which it was found, "body" outside any.
func parseJSON(text []byte) (any, error) {
	if !utf8.Valid(text) {
		return nil, problem.Invalid(problem.Field("body", "must be UTF-8"))
	}
	p := parser{decoder: json.NewDecoder(bytes.NewReader(text))}
	p.decoder.UseNumber()
	value, err := p.value("", 0)
	if err != nil {
		return nil, err
	}
	if _, err := p.decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, problem.Invalid(problem.Field("body", "has something behind the JSON value"))
	}
	// The token stream is laxer than the grammar about separators.
	if !json.Valid(text) {
		return nil, p.malformed("")
	}
	return value, nil
}

type parser struct {
	decoder *json.Decoder
}

func (p *parser) value(field string, depth int) (any, error) {
	token, err := p.decoder.Token()
	if err != nil {
		return nil, p.malformed(field)
	}
	switch token := token.(type) {
	case json.Delim:
		if depth == maxDepth {
			return nil, problem.Invalid(problem.Field(field, "is nested too deeply"))
		}
		if token == '{' {
			return p.object(field, depth+1)
		}
		return p.array(field, depth+1)
	case string:
		return token, checkString(field, token)
	default:
		return token, nil
	}
}

func (p *parser) object(field string, depth int) (any, error) {
	object := map[string]any{}
	for p.decoder.More() {
		token, err := p.decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, p.malformed(field)
		}
		if err := checkString(field, name); err != nil {
			return nil, err
		}
		member := join(field, name)
		if _, twice := object[name]; twice {
			return nil, problem.Invalid(problem.Field(member, "is given more than once"))
		}
		if object[name], err = p.value(member, depth); err != nil {
			return nil, err
		}
	}
	return object, p.end(field)
}

func (p *parser) array(field string, depth int) (any, error) {
	array := []any{}
	for p.decoder.More() {
		element, err := p.value(join(field, strconv.Itoa(len(array))), depth)
		if err != nil {
			return nil, err
		}
		array = append(array, element)
	}
	return array, p.end(field)
}

// end takes the closing bracket.
func (p *parser) end(field string) error {
	if _, err := p.decoder.Token(); err != nil {
		return p.malformed(field)
	}
	return nil
}

func (p *parser) malformed(field string) error {
	return problem.Invalid(problem.Field(field, fmt.Sprintf("is not well-formed JSON, at byte %d", p.decoder.InputOffset())))
}

func checkString(field, s string) error {
	if !clean(s) {
		return problem.Invalid(problem.Field(field, unclean))
	}
	return nil
}

// join appends a member's name or an element's index to the path of its parent.
func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}
