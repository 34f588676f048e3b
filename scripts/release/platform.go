package main

import (
	"fmt"
	"slices"
	"strings"
)

// program is what is released for each of its platforms.
type program struct {
	name, source string
	// unit are the files of deploy/systemd that its packages have, and which user of
	// eclitunnel.sysusers it runs as.
	unit string
	// summary and description are those of its packages.
	summary, description string
	// updates says that the program checks signatures of releases.
	updates bool
	// recommends are packages that it is of little use without, for each kind of package.
	recommends map[string]dependencies
}

// dependencies are other packages, as nfpm's configuration has them.
type dependencies struct {
	Recommends []string `json:"recommends,omitempty"`
}

var agent = program{
	name: "eclitunnel", source: "./clients/eclitunnel", unit: "eclitunnel", updates: true,
	summary: "EcliTunnel agent: public ports for game servers behind NAT",
	description: "The agent runs beside a game server, or as a tunnel server on a machine with a public\n" +
		"address. Enroll the machine with a panel, then enable the service eclitunnel.",
}

var panel = program{
	name: "eclitunneld", source: "./server/eclitunneld", unit: "eclitunneld",
	recommends: map[string]dependencies{"deb": {[]string{"postgresql"}}, "rpm": {[]string{"postgresql-server"}}},
	summary:    "EcliTunnel panel: API, console and an embedded tunnel server",
	description: "The panel of a fleet of tunnel servers. It hands out the agent for every platform.\n" +
		"Its settings are in /etc/eclitunnel/eclitunneld.env.",
}

// file returns the name of the program's file on a platform.
func (p program) file(target platform) string {
	if target.os == "windows" {
		return p.name + ".exe"
	}
	return p.name
}

// platform is an operating system and a processor.
type platform struct {
	os, arch string
	// arm is the version of 32-bit ARM: 6 or 7.
	arm string
}

// parse parses platforms such as linux/amd64 and linux/arm/7, with spaces between them.
func parse(text string) ([]platform, error) {
	var platforms []platform
	for _, one := range strings.Fields(text) {
		parts := strings.Split(one, "/")
		if len(parts) < 2 || len(parts) > 3 || (len(parts) == 3) != (parts[1] == "arm") || slices.Contains(parts, "") {
			return nil, fmt.Errorf("%q is no platform such as linux/amd64 or linux/arm/7", one)
		}
		p := platform{os: parts[0], arch: parts[1]}
		if len(parts) == 3 {
			p.arm = parts[2]
		}
		platforms = append(platforms, p)
	}
	return platforms, nil
}

// choose returns the platforms of agent and panel, without all but those in only, unless
// that is empty.
func choose(agents, panels, only string) (agentPlatforms, panelPlatforms []platform, err error) {
	for _, list := range []struct {
		text string
		to   *[]platform
	}{{agents, &agentPlatforms}, {panels, &panelPlatforms}} {
		if *list.to, err = parse(list.text); err != nil {
			return nil, nil, err
		}
	}
	wanted, err := parse(only)
	if err != nil || len(wanted) == 0 {
		return agentPlatforms, panelPlatforms, err
	}
	for i, one := range wanted {
		if !slices.Contains(agentPlatforms, one) && !slices.Contains(panelPlatforms, one) {
			return nil, nil, fmt.Errorf("there is no release for %s; there are ones for %s", strings.Fields(only)[i], agents)
		}
	}
	others := func(p platform) bool { return !slices.Contains(wanted, p) }
	return slices.DeleteFunc(agentPlatforms, others), slices.DeleteFunc(panelPlatforms, others), nil
}

// String returns the platform as names of files have it, such as linux_armv7.
func (p platform) String() string { return p.os + "_" + p.processor() }

// processor returns the name of the processor in names of files.
func (p platform) processor() string {
	if p.arm != "" {
		return p.arch + "v" + p.arm
	}
	return p.arch
}
