package db

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Identity is what an identity provider says of a person.
type Identity struct {
	// Provider is the name of the provider, which tells apart the subjects and organisations of several: lower-case
	// letters, digits and hyphens. Required.
	Provider string
	// Subject is what the provider calls the person, and never calls another one. Required.
	Subject string
	// Email is the person's email. It is empty if the provider says none; one below .invalid counts as none.
	Email string
	// LinkEmail makes an identity that is seen for the first time one of the account that has the email, and proves
	// that the email is the person's. It must only be set if the provider has verified that.
	LinkEmail bool
	// Admin says whether the person is an admin; nil leaves the role as it is, which is "user" at first.
	Admin *bool
	// Organisations are the person's organisations at the provider. nil leaves memberships as they are; an empty
	// list ends all in the provider's organisations.
	Organisations []IdentityOrganisation
}

// IdentityOrganisation is an organisation of an identity provider, and a person's role in it.
type IdentityOrganisation struct {
	ID   string `json:"id"` // Unique at the provider.
	Name string `json:"name"`
	Role string `json:"role"` // "owner", "admin" or "member".
}

// identityLock is the class of the advisory locks of [DB.SyncIdentity]: "ecli" in ASCII. Locks with a class have
// numbers of their own.
const identityLock = 0x65636c69

// SyncIdentity returns the user of an identity, after it has made the account, its organisations and its
// memberships what the provider says. It writes only what differs; most calls are one query. Changes are those of
// an actor of the kind [ActorProvider], at the address of the actor of ctx. The identity is one that
// [Identity.Clean] returns without an error.
//
// An identity that is seen for the first time gets a new account without a password, or the one that has its email
// if both are known to be the same person's: the identity's by LinkEmail, and the account's because an admin has
// set it or a provider has verified it. Such an account keeps its password and its sessions. With the first proof
// alone, an account that a provider has made, and that has no password, passes the email on: it gets one below
// .invalid. Otherwise the result is [ErrEmailTaken] if the email has an account that was made here or by another
// provider. If another person of the same provider has the email, which may have been passed on there, the new account
// has one below .invalid, until the email is free. The same goes for an account without an email.
//
// An account with identities at several providers is an admin's if any of them says so. Its email is that of its
// oldest identity that has one. It keeps its email while the new one has another account.
//
// The providers decide about their people, also where they take the role from the last admin. A suspended user
// stays suspended, and is returned. Memberships in organisations of the provider follow the provider; others are
// not touched. Organisations and their devices stay when their last member goes.
func (d *DB) SyncIdentity(ctx context.Context, identity Identity) (User, error) {
	cleaned, err := identity.Clean()
	if err != nil {
		return User{}, wrap(err, "identity at %s", identity.Provider)
	}
	identity = cleaned.sorted()
	ctx = WithActor(ctx, Actor{Kind: ActorProvider, ID: identity.Provider, Address: ActorOf(ctx).Address})
	known, err := identity.read(ctx, &d.requests)
	if err == nil && !identity.differs(known) {
		return known.User, nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return User{}, wrap(err, "identity at %s", identity.Provider)
	}
	var user User
	sync := func() error {
		return d.requests.tx(ctx, func(tx *sqlx.Tx) (err error) {
			user, err = identity.write(ctx, tx)
			return err
		})
	}
	err = sync()
	if translated := translate(err); errors.Is(translated, ErrConflict) && !errors.Is(translated, ErrEmailTaken) {
		err = sync() // Another account got the email meanwhile.
	}
	return user, wrap(err, "synchronise identity at %s", identity.Provider)
}

// sorted returns the identity with each organisation once, in the order of their IDs, with the highest role.
func (i Identity) sorted() Identity {
	if i.Organisations == nil {
		return i
	}
	roles := []string{"owner", "admin", "member"}
	i.Organisations = slices.Clone(i.Organisations)
	slices.SortStableFunc(i.Organisations, func(a, b IdentityOrganisation) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(slices.Index(roles, a.Role), slices.Index(roles, b.Role)))
	})
	i.Organisations = slices.CompactFunc(i.Organisations, func(a, b IdentityOrganisation) bool { return a.ID == b.ID })
	return i
}

// knownIdentity is what the database has of an identity.
type knownIdentity struct {
	User
	Proven    bool   `db:"email_proven"`
	SeenEmail string `db:"seen_email"` // What the provider has said before, as SeenAdmin.
	SeenAdmin *bool  `db:"seen_admin"`
	// OthersAdmin is what the user's other identities say together; nil if none of them says anything.
	OthersAdmin *bool  `db:"others_admin"`
	HasOlder    bool   `db:"has_older"`   // An older identity of the user has an email.
	SameEmail   bool   `db:"same_email"`  // The identity's email is the account's, in any case.
	Taken       bool   `db:"taken"`       // The identity's email has another account.
	Members     []byte `db:"memberships"` // JSON.
}

// getter reads one row: a lane, or a transaction.
type getter interface {
	GetContext(ctx context.Context, dest any, query string, args ...any) error
}

// read returns what the database has of the identity, or sql.ErrNoRows.
func (i Identity) read(ctx context.Context, from getter) (knownIdentity, error) {
	var known knownIdentity
	err := from.GetContext(ctx, &known,
		`SELECT `+userColumns+`, u.email_proven, i.email AS seen_email, i.admin AS seen_admin,
			(SELECT bool_or(o.admin) FROM identities o
				WHERE o.user_id = u.id AND (o.provider, o.subject) <> (i.provider, i.subject)) AS others_admin,
			EXISTS (SELECT 1 FROM identities o WHERE o.user_id = u.id AND o.email <> ''
				AND (o.created_at, o.provider, o.subject) < (i.created_at, i.provider, i.subject)) AS has_older,
			lower(u.email) = lower($3) AS same_email,
			EXISTS (SELECT 1 FROM users o WHERE lower(o.email) = lower($3) AND o.id <> u.id) AS taken,
			coalesce((SELECT json_agg(json_build_object('id', o.external_id, 'name', o.name, 'role', m.role))
				FROM organisation_members m JOIN organisations o ON o.id = m.organisation_id
				WHERE m.user_id = u.id AND o.provider = $1), '[]') AS memberships
		FROM identities i JOIN users u ON u.id = i.user_id WHERE i.provider = $1 AND i.subject = $2`,
		i.Provider, i.Subject, i.Email)
	return known, err
}

// differs reports whether the provider says something else than the database.
func (i Identity) differs(known knownIdentity) bool {
	if i.changed(known) || i.account(known) != known.account() {
		return true
	}
	if i.Organisations == nil {
		return false
	}
	var members []IdentityOrganisation
	if err := json.Unmarshal(known.Members, &members); err != nil {
		return true
	}
	slices.SortFunc(members, func(a, b IdentityOrganisation) int { return cmp.Compare(a.ID, b.ID) })
	return !slices.Equal(members, i.Organisations)
}

// changed reports whether the provider says something else of the person than before.
func (i Identity) changed(known knownIdentity) bool {
	return i.Email != known.SeenEmail || i.Admin != nil && (known.SeenAdmin == nil || *known.SeenAdmin != *i.Admin)
}

// account is what providers decide of an account.
type account struct {
	Email  string
	Proven bool
	Role   string
}

func (k knownIdentity) account() account { return account{k.Email, k.Proven, k.Role} }

// account returns what the account is to be.
func (i Identity) account(known knownIdentity) account {
	result := known.account()
	follows := i.Email != "" && !known.Taken && !known.HasOlder
	switch {
	case known.SameEmail:
		result.Proven = known.Proven || i.LinkEmail
	case follows:
		result.Proven = i.LinkEmail
	}
	if follows {
		result.Email = i.Email
	}
	admin := i.Admin
	if admin == nil {
		admin = known.SeenAdmin
	}
	switch admin = either(admin, known.OthersAdmin); {
	case admin == nil:
	case *admin:
		result.Role = "admin"
	default:
		result.Role = "user"
	}
	return result
}

// either returns whether one of them is true; nil if both are nil.
func either(a, b *bool) *bool {
	if a == nil || b != nil && *b {
		return b
	}
	return a
}

// write does what [DB.SyncIdentity] says.
func (i Identity) write(ctx context.Context, tx *sqlx.Tx) (User, error) {
	// Two replicas may see the same new person at once.
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1::integer, hashtext($2 || ' ' || $3))`,
		identityLock, i.Provider, i.Subject)
	if err != nil {
		return User{}, err
	}
	if err := lockForUpdates(ctx, tx); err != nil {
		return User{}, err
	}
	// As everywhere, users are locked before organisations.
	_, err = tx.ExecContext(ctx,
		`SELECT u.id FROM users u JOIN identities i ON i.user_id = u.id
		WHERE i.provider = $1 AND i.subject = $2 FOR NO KEY UPDATE OF u`, i.Provider, i.Subject)
	if err != nil {
		return User{}, err
	}
	known, err := i.read(ctx, tx)
	if errors.Is(err, sql.ErrNoRows) {
		if err = i.create(ctx, tx); err == nil {
			known, err = i.read(ctx, tx)
		}
	}
	if err != nil {
		return User{}, err
	}
	user := known.User
	if account := i.account(known); account != known.account() {
		if err := account.store(ctx, tx, &user); err != nil {
			return User{}, err
		}
	}
	if i.changed(known) {
		_, err := tx.ExecContext(ctx, `UPDATE identities SET email = $3, admin = coalesce($4, admin) WHERE provider = $1 AND subject = $2`,
			i.Provider, i.Subject, i.Email, i.Admin)
		if err != nil {
			return User{}, err
		}
	}
	return user, i.syncOrganisations(ctx, tx, user.ID)
}

// create stores an identity that is seen for the first time, with its account.
func (i Identity) create(ctx context.Context, tx *sqlx.Tx) error {
	var holder struct {
		ID     int64
		Proven bool `db:"email_proven"`
		Same   bool // An account of the same provider.
		// Oldest identity of an account that nobody uses by a password; otherwise empty.
		Provider, Subject string
	}
	err := tx.GetContext(ctx, &holder,
		`SELECT u.id, u.email_proven, EXISTS (SELECT 1 FROM identities i WHERE i.user_id = u.id AND i.provider = $2) AS same,
			coalesce(o.provider, '') AS provider, coalesce(o.subject, '') AS subject
		FROM users u LEFT JOIN LATERAL (SELECT i.provider, i.subject FROM identities i
			WHERE i.user_id = u.id AND u.password_hash = '' ORDER BY i.created_at, i.provider, i.subject LIMIT 1) o ON true
		WHERE lower(u.email) = lower($1) FOR NO KEY UPDATE OF u`, i.Email, i.Provider)
	email := i.Email
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return err
	case holder.Same:
		email = ""
	case i.LinkEmail && holder.Proven:
		return i.link(ctx, tx, holder.ID)
	case i.LinkEmail && holder.Provider != "":
		// Otherwise anybody at a provider that verifies no emails could keep the owner of one out.
		if err := (Identity{Provider: holder.Provider, Subject: holder.Subject}).loseEmail(ctx, tx, holder.ID); err != nil {
			return err
		}
	default:
		return ErrEmailTaken
	}
	if email == "" {
		email = i.placeholder()
	}
	var id int64
	role := "user"
	if i.Admin != nil && *i.Admin {
		role = "admin"
	}
	err = tx.GetContext(ctx, &id,
		`INSERT INTO users (email, email_proven, password_hash, role) VALUES ($1, $2, '', $3) RETURNING id`,
		email, email == i.Email && i.LinkEmail, role)
	if err != nil {
		return err
	}
	return i.link(ctx, tx, id)
}

// loseEmail gives the account of the identity the email of one that has none.
func (i Identity) loseEmail(ctx context.Context, tx *sqlx.Tx, userID int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE users SET email = $2 WHERE id = $1`, userID, i.placeholder())
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM password_links WHERE user_id = $1`, userID)
	}
	return err
}

func (i Identity) link(ctx context.Context, tx *sqlx.Tx, userID int64) error {
	_, err := tx.ExecContext(ctx,
		`INSERT INTO identities (provider, subject, user_id, email, admin) VALUES ($1, $2, $3, $4, $5)`,
		i.Provider, i.Subject, userID, i.Email, i.Admin)
	return err
}

// localPart matches subjects that can stand in an email, where the case of letters does not count.
var localPart = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$`)

// placeholder returns the email of an account that has none. Nothing is ever sent to it (RFC 2606).
func (i Identity) placeholder() string {
	local := i.Subject
	if !localPart.MatchString(local) {
		hash := sha256.Sum256([]byte(local))
		local = hex.EncodeToString(hash[:])
	}
	return local + "@" + i.Provider + ".invalid"
}

// store changes the user. As in [DB.UpdateUser], another email ends the password link. Unlike there, a change of the
// role does not wait for what the user adds at the same moment, which may count by the role of before: the lock of
// quotas comes before that of the user, whose role is not known before.
func (a account) store(ctx context.Context, tx *sqlx.Tx, user *User) error {
	previous := user.Email
	err := tx.GetContext(ctx, user,
		`UPDATE users AS u SET email = $2, email_proven = $3, role = $4 WHERE u.id = $1 RETURNING `+userColumns,
		user.ID, a.Email, a.Proven, a.Role)
	if err == nil && a.Email != previous {
		_, err = tx.ExecContext(ctx, `DELETE FROM password_links WHERE user_id = $1`, user.ID)
	}
	return err
}

// syncOrganisations creates and renames the person's organisations, and makes the memberships what the provider
// says. The user is locked.
func (i Identity) syncOrganisations(ctx context.Context, tx *sqlx.Tx, userID int64) error {
	if i.Organisations == nil {
		return nil
	}
	var ids, names, roles = []string{}, []string{}, []string{}
	for _, organisation := range i.Organisations {
		ids, names, roles = append(ids, organisation.ID), append(names, organisation.Name), append(roles, organisation.Role)
	}
	// New ones are inserted in one order, before one that exists is locked. Then all are locked in the order of
	// their rows' ids, as everywhere. So no two transactions wait for each other.
	_, err := tx.ExecContext(ctx,
		`INSERT INTO organisations (provider, external_id, name)
		SELECT $1, w.id, w.name FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS w (id, name, n) ORDER BY w.n
		ON CONFLICT (provider, external_id) DO NOTHING`,
		i.Provider, pq.Array(ids), pq.Array(names))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx,
		`SELECT o.id FROM organisations o WHERE o.provider = $1 AND (o.external_id = ANY ($3::text[])
			OR o.id IN (SELECT organisation_id FROM organisation_members WHERE user_id = $2))
		ORDER BY o.id FOR NO KEY UPDATE`, i.Provider, userID, pq.Array(ids))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx,
		`UPDATE organisations o SET name = w.name FROM unnest($2::text[], $3::text[]) AS w (id, name)
		WHERE o.provider = $1 AND o.external_id = w.id AND o.name <> w.name`, i.Provider, pq.Array(ids), pq.Array(names))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx,
		`DELETE FROM organisation_members m USING organisations o
		WHERE m.user_id = $2 AND o.id = m.organisation_id AND o.provider = $1 AND o.external_id <> ALL ($3::text[])`,
		i.Provider, userID, pq.Array(ids))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx,
		`INSERT INTO organisation_members AS m (organisation_id, user_id, role)
		SELECT o.id, $2, w.role FROM unnest($3::text[], $4::text[]) AS w (id, role)
			JOIN organisations o ON o.provider = $1 AND o.external_id = w.id
		ON CONFLICT (organisation_id, user_id) DO UPDATE SET role = EXCLUDED.role WHERE m.role <> EXCLUDED.role`,
		i.Provider, userID, pq.Array(ids), pq.Array(roles))
	return err
}
