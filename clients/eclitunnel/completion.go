package main

import (
	"context"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kong"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/commandline"
)

// completionLimit is for how long a completion asks the panel for the ports of this machine.
const completionLimit = 2 * time.Second

type completionCmd struct {
	Shell word `arg:"" enum:"bash,zsh,fish,powershell" help:"bash, zsh, fish or powershell."`
}

func (*completionCmd) Help() string {
	return `The shell reads the script when it starts. It completes commands, flags, their values, and the names of this machine's ports:

    bash        eclitunnel completion bash > ~/.local/share/bash-completion/completions/eclitunnel
    zsh         eclitunnel completion zsh > a directory of $fpath/_eclitunnel
    fish        eclitunnel completion fish > ~/.config/fish/completions/eclitunnel.fish
    PowerShell  eclitunnel completion powershell >> $PROFILE

The packages for Linux install those of bash, zsh and fish.`
}

// Run implements the command.
func (cmd *completionCmd) Run(a *app) error {
	return commandline.Script(a.stdout, string(cmd.Shell), "eclitunnel")
}

// complete answers a shell's script. What the panel does not say in time is left out, and so is every error: there is
// nobody to read it.
func (a *app) complete(ctx context.Context, parser *kong.Kong, words []string) error {
	ctx, cancel := context.WithTimeout(ctx, completionLimit)
	defer cancel()
	return commandline.Answer(a.stdout, words, func(words []string) commandline.Completion {
		return commandline.Complete(parser.Model, words, func(command *kong.Node, value *kong.Value, given map[string]string) []commandline.Candidate {
			switch {
			case value.Name == "id-port-or-name":
				return nameCandidates(a.ownPorts(ctx, given))
			case value.Name == "label" && command.Name == "list":
				return labelCandidates(a.ownPorts(ctx, given))
			}
			return nil
		})
	})
}

// ownPorts returns the allocations of this machine, or of what the flags of a command line name.
func (a *app) ownPorts(ctx context.Context, given map[string]string) []types.Allocation {
	var grammar struct {
		settings `embed:""`
		Ports    listCmd `cmd:""`
	}
	args := []string{"ports"}
	for name, value := range given {
		if name == "config" || name == "panel" || name == "insecure" || name == "token-file" && value != "-" {
			args = append(args, "--"+name+"="+value)
		}
	}
	quiet := &app{env: a.env, stdin: a.stdin, stdout: io.Discard, stderr: io.Discard, wait: a.wait}
	parser, err := kong.New(&grammar, kong.Writers(io.Discard, io.Discard), kong.Resolvers(kong.ResolverFunc(quiet.fromEnvironment)))
	if err != nil {
		return nil
	}
	if _, err := parser.Parse(args); err != nil {
		return nil
	}
	_, client, err := grammar.device(quiet)
	if err != nil {
		return nil
	}
	defer client.Close()
	allocations, err := client.Allocations(ctx)
	if err != nil {
		return nil
	}
	return allocations
}

// nameCandidates returns what names ports: their names, and the public ports of those without.
func nameCandidates(allocations []types.Allocation) []commandline.Candidate {
	found := map[string]string{}
	for _, o := range allocations {
		name := o.Name
		if name == "" {
			name = strconv.Itoa(o.Port)
		}
		if description, twice := found[name]; twice {
			found[name] = description + ", " + string(o.Protocol) + " " + o.PublicAddress
		} else {
			found[name] = string(o.Protocol) + " " + o.PublicAddress
		}
	}
	return candidates(found)
}

func labelCandidates(allocations []types.Allocation) []commandline.Candidate {
	found := map[string]string{}
	for _, o := range allocations {
		for key, value := range o.Labels {
			found[key], found[key+"="+value] = "", ""
		}
	}
	return candidates(found)
}

func candidates(descriptions map[string]string) (sorted []commandline.Candidate) {
	for _, value := range slices.Sorted(maps.Keys(descriptions)) {
		sorted = append(sorted, commandline.Candidate{Value: value, Description: descriptions[value]})
	}
	return sorted
}
