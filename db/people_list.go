package db

import "context"

// UserFilter selects accounts. Of its fields, nil and "" mean any.
type UserFilter struct {
	Beginning string // What the email begins with, in any case.
	Search    string // What the email contains, in any case.
	Role      string // "user" or "admin".
	Suspended *bool
}

var userSorts = map[string]sortKey{
	"email":     lowerName(`u.email`),
	"createdAt": {`u.created_at`, `?::timestamptz`},
}

// FindUsers lists the accounts that match a filter, sorted by email or createdAt.
func (d *DB) FindUsers(ctx context.Context, filter UserFilter, l Listing) ([]User, error) {
	var s selection
	s.where(`true`)
	if filter.Beginning != "" {
		s.where(`lower(u.email) COLLATE "C" >= lower(?::text) AND lower(u.email) COLLATE "C" < lower(?::text) || ?::text`,
			filter.Beginning, filter.Beginning, lastCharacter)
	}
	if filter.Search != "" {
		s.where(contains(`lower(u.email) COLLATE "C"`), filter.Search)
	}
	if filter.Role != "" {
		s.where(`u.role = ?::text`, filter.Role)
	}
	if filter.Suspended != nil {
		s.where(`u.suspended = ?::boolean`, *filter.Suspended)
	}
	order, limit, err := s.page(l, userSorts, sortKey{`u.id`, `?::bigint`})
	if err != nil {
		return nil, wrap(err, "find users")
	}
	var users []User
	err = d.search(ctx, true, func(ctx context.Context) error {
		return d.requests.SelectContext(ctx, &users, `SELECT `+userColumns+` FROM users u WHERE `+s.all()+order+limit, s.args...)
	})
	return users, wrap(err, "find users")
}

// OrganisationFilter selects organisations. Of its fields, "" means any.
type OrganisationFilter struct {
	Beginning string // What the name begins with, in any case.
	Search    string // What the name contains, in any case.
}

var organisationSorts = map[string]sortKey{
	"name":      lowerName(`o.name`),
	"createdAt": {`o.created_at`, `?::timestamptz`},
}

// FindOrganisations lists the organisations in scope that match a filter, with the role of the user whose scope it is,
// sorted by name or createdAt.
func (d *DB) FindOrganisations(ctx context.Context, scope Scope, filter OrganisationFilter, l Listing) ([]Organisation, error) {
	s := selection{args: scope.args()}
	s.where(visibleOrganisation)
	if filter.Beginning != "" {
		s.where(`lower(o.name) COLLATE "C" >= lower(?::text) AND lower(o.name) COLLATE "C" < lower(?::text) || ?::text`,
			filter.Beginning, filter.Beginning, lastCharacter)
	}
	if filter.Search != "" {
		s.where(contains(`lower(o.name) COLLATE "C"`), filter.Search)
	}
	order, limit, err := s.page(l, organisationSorts, sortKey{`o.id`, `?::bigint`})
	if err != nil {
		return nil, wrap(err, "find organisations")
	}
	var organisations []Organisation
	err = d.search(ctx, scope.All, func(ctx context.Context) error {
		return d.requests.SelectContext(ctx, &organisations,
			`SELECT `+organisationColumns+` FROM organisations o WHERE `+s.all()+order+limit, s.args...)
	})
	return organisations, wrap(err, "find organisations")
}
