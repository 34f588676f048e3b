// Package systemd holds the units of the programs, from which the agent makes its own when
// it installs itself as a service.
package systemd

import _ "embed" // For AgentUnit.

// AgentUnit is the unit of the agent as packages install it. For its own paths and user,
// eclitunnel service install changes a copy.
//
//go:embed eclitunnel.service
var AgentUnit string
