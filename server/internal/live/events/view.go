package events

import (
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// view is what a subscriber may see. The zero view is nothing. Its conditions are those of db.Scope.
type view struct {
	all           bool
	userID        int64   // 0 is none.
	organisations []int64 // In ascending order.
}

// viewOf returns the view of a caller who is a member of some organisations.
func viewOf(p auth.Principal, organisations []int64) view {
	scope := p.Scope()
	v := view{all: scope.All, userID: scope.UserID, organisations: organisations}
	if scope.UserID == 0 && scope.OrganisationID != 0 {
		v.organisations = []int64{scope.OrganisationID}
	}
	return v
}

func (v view) equal(other view) bool {
	return v.all == other.all && v.userID == other.userID && slices.Equal(v.organisations, other.organisations)
}

// sees reports whether what a user or an organisation owns is in the view.
func (v view) sees(of owner) bool {
	if v.all {
		return true
	}
	if of.user != 0 {
		return of.user == v.userID
	}
	if of.organisation == 0 {
		return false
	}
	_, found := slices.BinarySearch(v.organisations, of.organisation)
	return found
}

// owner is whose a device is: at most one of the two is set.
type owner struct{ user, organisation int64 }

func ownerOf(user, organisation *int64) owner {
	var o owner
	if user != nil {
		o.user = *user
	}
	if organisation != nil {
		o.organisation = *organisation
	}
	return o
}

// kinds are kinds of events: the beginnings of their types.
type kinds map[types.EventKind]bool

// permittedKinds are those of which a caller may read what they are about.
func permittedKinds(p auth.Principal) kinds {
	permitted := kinds{}
	for kind, operation := range map[types.EventKind]string{
		types.KindOfDevice: "listDevices", types.KindOfAllocation: "listAllocations", types.KindOfUsage: "listAllocations",
		types.KindOfConnection: "listConnections",
	} {
		permitted[kind] = p.May(operation, "")
	}
	return permitted
}

// only leaves those of a list; an empty list leaves all.
func (k kinds) only(wanted []string) kinds {
	if len(wanted) == 0 {
		return k
	}
	chosen := kinds{}
	for _, kind := range wanted {
		chosen[types.EventKind(kind)] = k[types.EventKind(kind)]
	}
	return chosen
}

// kindOf returns the kind of a type of events.
func kindOf(name string) types.EventKind {
	kind, _, _ := strings.Cut(name, ".")
	return types.EventKind(kind)
}

// change is what an event is to a subscriber.
type change int

const (
	nothing change = iota
	created
	updated
	deleted
	asIs // An event that is no change of a device or an allocation.
	changes
)

// changeFor returns what an event is to a view.
func (e *entry) changeFor(v view) change {
	sees := v.sees(e.owner)
	switch {
	case e.what == deleted:
		if sees {
			return deleted
		}
		return nothing
	case e.transferred:
		saw := v.sees(e.previous)
		switch {
		case saw && !sees:
			return deleted
		case !sees, !v.sees(e.current):
			return nothing
		case !saw:
			return created
		}
		return updated
	case !sees, e.what != asIs && !v.sees(e.current):
		return nothing
	}
	return e.what
}

// changeOf returns what an event of the log is to those who see it before and after.
func changeOf(e db.LoggedEvent) change {
	switch e.Type {
	case db.EventDeviceCreated, db.EventAllocationCreated:
		return created
	case db.EventDeviceUpdated, db.EventAllocationUpdated:
		return updated
	case db.EventDeviceDeleted, db.EventAllocationDeleted:
		return deleted
	default:
		return asIs
	}
}
