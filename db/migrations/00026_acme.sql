-- +goose Up
-- Certificates that the panel gets from an authority by itself (ACME, RFC 8555). An authority is named by the
-- URL of its directory. Replicas of the previous version do not read these tables.
--
-- The account at each authority, which all replicas share.
CREATE TABLE acme_accounts (
    directory text  PRIMARY KEY,
    key       bytea NOT NULL -- PKCS #8, or encrypted (package atrest) where the operator gave a key file.
);

-- The certificate of each domain, and what became of the attempts to get or renew it.
CREATE TABLE acme_certificates (
    directory    text        NOT NULL,
    domain       text        NOT NULL,
    chain        bytea, -- PEM, the domain's first. NULL before the first success, as are the next three.
    key          bytea, -- As that of an account.
    not_after    timestamptz,
    renew_at     timestamptz,
    leased_until timestamptz,                     -- One replica at a time makes an attempt; NULL: none does.
    lease        uuid,                            -- Of the last attempt.
    failures     integer     NOT NULL DEFAULT 0,  -- Attempts since the last success, the present one included.
    failure      text        NOT NULL DEFAULT '', -- Why the last one failed.
    retry_at     timestamptz,                     -- No attempt before; NULL: at once.
    challenge    text        NOT NULL DEFAULT '', -- The type of challenge that succeeded last.
    PRIMARY KEY (directory, domain)
);

-- Challenges of authorities that wait for an answer, from whichever replica they ask.
CREATE TABLE acme_challenges (
    kind       text        NOT NULL, -- http-01 or tls-alpn-01
    name       text        NOT NULL, -- The token, or the domain.
    answer     bytea       NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (kind, name)
);

-- +goose Down
DROP TABLE acme_challenges;
DROP TABLE acme_certificates;
DROP TABLE acme_accounts;
