-- Once, as the user postgres: psql -v ON_ERROR_STOP=1 -f roles.sql
-- Then their passwords, which psql sends as hashes: \password gateway, \password gateway_reader. docs/deployment.md says more.

-- What DATABASE_URL names. It owns its tables, since each start of a new release brings them forward; it can create neither
-- roles nor databases, and is in no other database.
create role gateway login;
-- For people and reports. It reads, on a standby if there is one, and no report of it holds vacuum up for ever.
create role gateway_reader login;
alter role gateway_reader set default_transaction_read_only = on;
alter role gateway_reader set statement_timeout = '1min';

create database gateway owner gateway encoding 'UTF8' template template0;
revoke all on database gateway from public;
grant connect on database gateway to gateway_reader;

\connect gateway
-- Until Postgres 14 everybody may create tables here; whoever can shadows the gateway's.
revoke all on schema public from public;
alter schema public owner to gateway;
grant usage on schema public to gateway_reader;
alter default privileges for role gateway in schema public grant select on tables to gateway_reader;
