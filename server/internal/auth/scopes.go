package auth

import (
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Scopes is a set of scopes of API keys: those that a key has, or of which an operation
// needs one.
type Scopes uint8

// The scopes of API keys. In the table of who may do what, each row has those of which a
// key needs one; with any other key the operation is refused.
const (
	ScopeRead        Scopes = 1 << iota // Everything that the owner may see.
	ScopeDevices                        // Change, delete and drain devices.
	ScopeAllocations                    // Create, change and delete allocations.
	ScopeEnrollment                     // Whatever yields a device's identity.
	ScopeAdmin                          // The role of an admin.

	read        = ScopeRead
	devices     = ScopeDevices
	allocations = ScopeAllocations
	enrollment  = ScopeEnrollment
	admin       = ScopeAdmin
	// people is an operation that takes no key: its caller is a person, with a session.
	people Scopes = 0
	// agents is an operation that takes device tokens only.
	agents Scopes = 0
	// anyone is an operation that ignores credentials.
	anyone Scopes = 1<<8 - 1
)

// scopeNames are the names of scopes in the contract, each at the index of its bit.
var scopeNames = [...]types.APIKeyScope{
	types.ScopeRead, types.ScopeDevices, types.ScopeAllocations, types.ScopeEnrollment, types.ScopeAdmin,
}

// ParseScopes returns the scopes with names of the contract. Other names, as those of a
// later version, give nothing.
func ParseScopes[Name ~string](names []Name) (scopes Scopes) {
	for _, name := range names {
		for bit, known := range scopeNames {
			if string(name) == string(known) {
				scopes |= 1 << bit
			}
		}
	}
	return scopes
}

// Names returns the names of the scopes, in the order of the contract.
func (s Scopes) Names() []string {
	var names []string
	for bit, name := range scopeNames {
		if s&(1<<bit) != 0 {
			names = append(names, string(name))
		}
	}
	return names
}

// Refuse returns the refusal of a caller whose API key has none of the scopes, or nil.
// Other callers need no scope.
func (s Scopes) Refuse(p Principal) error {
	switch {
	case p.Key == nil || p.scopes()&s != 0:
		return nil
	case s == people:
		return problem.Forbidden("This operation does not accept an API key.")
	default:
		return problem.Forbidden("The API key lacks the scope " + strings.Join(s.Names(), " or ") + ".")
	}
}

// scopes returns those of the caller's API key.
func (p Principal) scopes() Scopes {
	if p.Key == nil {
		return 0
	}
	return ParseScopes(p.Key.Scopes)
}
