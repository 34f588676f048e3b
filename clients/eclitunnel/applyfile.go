package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"gopkg.in/yaml.v3"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// maxApplyFile bounds a file of apply, in bytes: some thousand ports.
const maxApplyFile = 1 << 20

// declared is a tunnel as a file of apply describes it.
type declared struct {
	name     string
	protocol types.AllocationCreateProtocol
	target   localTarget
	port     int        // The public port; 0 is any.
	server   *uuid.UUID // nil is any.
	enabled  *bool      // nil leaves it as it is.
	labels   types.Labels
	options  map[string]any // As in the contract, without those that are null or empty.
}

// applyFile is a file of apply that is being read. Its errors name the file and the line.
type applyFile struct{ name string }

// readApplyFile reads a file of apply: YAML, or JSON. path - is stdin.
func readApplyFile(path string, stdin io.Reader) ([]declared, error) {
	f := applyFile{name: path}
	source := stdin
	if path == "-" {
		f.name = "standard input"
	} else {
		opened, err := os.Open(path)
		if err != nil {
			return nil, &usageError{err}
		}
		defer func() { _ = opened.Close() }()
		source = opened
	}
	text, err := io.ReadAll(io.LimitReader(source, maxApplyFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", f.name, err)
	case len(text) > maxApplyFile:
		return nil, usagef("%s is larger than %d bytes", f.name, maxApplyFile)
	}
	return f.parse(text)
}

func (f applyFile) parse(text []byte) ([]declared, error) {
	if json.Valid(text) {
		text = bytes.ReplaceAll(text, []byte("\t"), []byte(" ")) // YAML takes no tabs between tokens.
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, more yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, usagef("%s is empty; it needs the key tunnels", f.name)
	case err != nil:
		return nil, usagef("%s: %s", f.name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, usagef("%s has more than one document", f.name)
	}
	var tunnels *yaml.Node
	err := f.each(document.Content[0], "the file", func(key, value *yaml.Node) error {
		if key.Value != "tunnels" {
			return f.unknown(key, "tunnels")
		}
		tunnels = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	if tunnels == nil {
		return nil, usagef("%s has no key tunnels", f.name)
	}
	var all []declared
	err = f.each(tunnels, "tunnels", func(key, value *yaml.Node) error {
		d, err := f.tunnel(key, value)
		all = append(all, d)
		return err
	})
	return all, err
}

// fail returns an error about a place in the file.
func (f applyFile) fail(at *yaml.Node, format string, args ...any) error {
	return usagef("%s:%d: %s", f.name, at.Line, fmt.Sprintf(format, args...))
}

func (f applyFile) unknown(key *yaml.Node, known ...string) error {
	return f.fail(key, "unknown key %q; known here: %s", key.Value, strings.Join(known, ", "))
}

// each calls fn with the keys and values of a mapping, in their order. Null is an empty mapping.
func (f applyFile) each(node *yaml.Node, what string, fn func(key, value *yaml.Node) error) error {
	node = resolve(node)
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return nil
	}
	if node.Kind != yaml.MappingNode {
		return f.fail(node, "%s must be a mapping of keys and values", what)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := resolve(node.Content[i])
		if key.Kind != yaml.ScalarNode {
			return f.fail(key, "%s has a key that is no text", what)
		}
		if line, twice := seen[key.Value]; twice {
			return f.fail(key, "the key %q is in line %d already", key.Value, line)
		}
		seen[key.Value] = key.Line
		if err := fn(key, resolve(node.Content[i+1])); err != nil {
			return err
		}
	}
	return nil
}

// resolve follows an alias. YAML's anchors cannot form a circle of aliases alone.
func resolve(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

var tunnelKeys = []string{"protocol", "local", "publicPort", "server", "enabled", "labels", "options"}

func (f applyFile) tunnel(key, node *yaml.Node) (declared, error) {
	d := declared{name: key.Value, labels: types.Labels{}, options: map[string]any{}}
	if d.name == "" {
		return d, f.fail(key, "a tunnel needs a name")
	}
	err := f.each(node, d.name, func(key, value *yaml.Node) error {
		switch key.Value {
		case "protocol":
			return f.protocol(value, &d)
		case "local":
			return f.local(value, &d)
		case "publicPort":
			return f.scalar(value, &d.port, "a port, 1 to 65535")
		case "server":
			return f.scalar(value, &d.server, "the id of a tunnel server")
		case "enabled":
			return f.scalar(value, &d.enabled, "true or false")
		case "labels":
			return f.labels(value, &d)
		case "options":
			return f.options(value, &d)
		}
		return f.unknown(key, tunnelKeys...)
	})
	switch {
	case err != nil:
		return d, err
	case d.protocol == "":
		return d, f.fail(key, "%s has no protocol: tcp, udp or tcp+udp", d.name)
	case d.target.count == 0:
		return d, f.fail(key, "%s has no local port, as in local: 25565", d.name)
	case d.port < 0 || d.port > lastPort-d.target.count+1:
		return d, f.fail(key, "publicPort of %s must be between 1 and %d", d.name, lastPort-d.target.count+1)
	case d.options["proxyProtocol"] == string(types.ProxyProtocolV1) && d.protocol != types.CreateTCP:
		return d, f.fail(key, "%s: proxyProtocol v1 cannot describe UDP; use v2", d.name)
	}
	return d, nil
}

func (f applyFile) protocol(node *yaml.Node, d *declared) error {
	d.protocol = types.AllocationCreateProtocol(strings.ToLower(node.Value))
	if node.Kind != yaml.ScalarNode || !d.protocol.Valid() {
		return f.fail(node, "protocol must be tcp, udp or tcp+udp")
	}
	return nil
}

func (f applyFile) local(node *yaml.Node, d *declared) error {
	if node.Kind != yaml.ScalarNode {
		return f.fail(node, `local must be a port, HOST:PORT or neighbouring ports, as in 2456-2458; put an address with brackets in quotes, as in "[::1]:25565"`)
	}
	var err error
	if d.target, err = parseTarget(node.Value, ""); err != nil {
		return f.fail(node, "%v", err)
	}
	return nil
}

// scalar decodes a value that is not null.
func (f applyFile) scalar(node *yaml.Node, to any, what string) error {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" || node.Decode(to) != nil {
		return f.fail(node, "%q is not %s", node.Value, what)
	}
	return nil
}

func (f applyFile) labels(node *yaml.Node, d *declared) error {
	return f.each(node, "labels", func(key, value *yaml.Node) error {
		if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
			return f.fail(value, "the label %s must be a text", key.Value)
		}
		if key.Value == managedBy || key.Value == applySet {
			return f.fail(key, "the label %s is that of apply itself", key.Value)
		}
		d.labels[key.Value] = value.Value // As it is written: 1.10 is no number.
		return nil
	})
}

// optionNames are the fields of AllocationOptions.
var optionNames = func() (names []string) {
	for field := range reflect.TypeFor[types.AllocationOptions]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}()

// options reads options as the contract has them. The panel checks their ranges.
func (f applyFile) options(node *yaml.Node, d *declared) error {
	return f.each(node, "options", func(key, value *yaml.Node) error {
		if !slices.Contains(optionNames, key.Value) {
			return f.unknown(key, optionNames...)
		}
		var decoded any
		if err := value.Decode(&decoded); err != nil {
			return f.fail(value, "%s: %s", key.Value, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		option, err := toOptions(map[string]any{key.Value: decoded})
		if err != nil {
			return f.fail(value, "%s has a value of the wrong type", key.Value)
		}
		maps.Copy(d.options, optionsOf(option))
		return nil
	})
}

// toOptions converts options to their type in the contract.
func toOptions(options map[string]any) (types.AllocationOptions, error) {
	var converted types.AllocationOptions
	text, err := json.Marshal(options)
	if err == nil {
		err = json.Unmarshal(text, &converted)
	}
	return converted, err
}

// optionsOf returns options by name, as JSON has them, without those that mean nothing: null and empty lists.
func optionsOf(options types.AllocationOptions) map[string]any {
	named := map[string]any{}
	text, err := json.Marshal(options)
	if err == nil {
		_ = json.Unmarshal(text, &named)
	}
	maps.DeleteFunc(named, func(_ string, value any) bool {
		list, isList := value.([]any)
		return value == nil || isList && len(list) == 0
	})
	return named
}

// valueText returns a value of a file or of the panel for people.
func valueText(value any) string {
	switch value := value.(type) {
	case nil:
		return "(none)"
	case string:
		return strconv.Quote(value)
	}
	text, _ := json.Marshal(value)
	return string(text)
}
