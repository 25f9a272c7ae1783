-- Run once by PostgreSQL's first start, as the superuser, in the database `prefect`.
-- Prefect's migrations need pg_trgm, which only a superuser can be relied on to create.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
